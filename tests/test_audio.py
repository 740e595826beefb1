"""Reading audio tracks: a record decodes to what the source does, by itself."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from media_samples import grey_yuv, smooth, tone

from gvcc.errors import MediaError
from gvcc.format import bitstream
from gvcc.pictures import audio, lossless, media
from gvcc.pictures.media import Video
from gvcc.records import Audio, Packet


@pytest.mark.parametrize(
    "codec, muxer, rate",
    [("g726", "avi", 8000), ("adpcm_ima_wav", "avi", 48000), ("wmav2", "asf", 44100)],
)
def test_a_record_holds_what_its_decoder_needs_of_the_container(codec, muxer, rate):
    layout = "mono" if codec == "g726" else "stereo"
    data = tone(codec, layout, 1.0, muxer, grey_yuv(24), rate=rate)
    track = media.open_clip(io.BytesIO(data)).audio
    assert track.extradata.startswith(b"fmt ")
    form, header = audio.wave(track)
    assert (form.channels, form.rate) == (2 - (layout == "mono"), rate) and form.block_align
    with av.open(io.BytesIO(data)) as box:
        stream = box.streams.audio[0]
        assert header == (stream.codec_context.extradata or b"")
        wanted = np.concatenate([lossless.samples(frame) for frame in box.decode(stream)])
    assert np.array_equal(audio.joined(audio.decoded(audio.decoder(track), track)), wanted)


@pytest.mark.parametrize("codec", ["aac", "alac", "flac", "libopus", "pcm_s16le", "ac3"])
def test_a_header_that_suffices_stays_as_it_is(codec):
    muxer = "mp4" if codec in ("aac", "alac") else "matroska"
    data = tone(codec, "stereo", 1.0, muxer, grey_yuv(24))
    with av.open(io.BytesIO(data)) as box:
        header = box.streams.audio[0].codec_context.extradata or b""
    assert media.open_clip(io.BytesIO(data)).audio.extradata == header


@pytest.mark.parametrize("codec, rate", [("libopencore_amrnb", 8000), ("g726", 8000)])
def test_avi_that_counts_bytes_for_packets(codec, rate):
    data = tone(codec, "mono", 1.0, "avi", grey_yuv(24), rate=rate)
    with av.open(io.BytesIO(data)) as box:
        stream = box.streams.audio[0]
        stamps = [p.pts * p.time_base for p in box.demux(stream) if p.size]
    assert stamps[-1] > 2  # of one second of sound
    track = media.open_clip(io.BytesIO(data)).audio
    assert 0.5 < track.packets[-1].pts * track.time_base <= 1


def test_one_gap_is_a_gap():
    data = tone("aac", "stereo", 1.0, "mp4", grey_yuv(24))
    with av.open(io.BytesIO(data)) as box:
        stream = box.streams.audio[0]
        packets = [packet for packet in box.demux(stream) if packet.size]
        for packet in packets[5:]:
            packet.pts = packet.dts = packet.pts + 48000
        found, _ = audio.track(stream, packets, Fraction(0), None)
    assert found.packets[5].pts - found.packets[4].pts == 48000 + 1024


@pytest.mark.parametrize(
    "layout, name",
    [
        ("10 channels", "10C"),
        ("2 channels", "stereo"),
        ("FL+LFE", "FL+LFE"),
        ("ambisonic 1", "4C"),
        ("5.1(side)", "5.1(side)"),
        ("+".join(c.name for c in av.AudioLayout("22.2").channels[:20]), "20C"),
    ],
)
def test_every_layout_has_a_name_for_the_file(layout, name):
    found = lossless.layout_name(av.AudioLayout(layout))
    assert found == name and bitstream.is_name(found.encode())
    assert av.AudioLayout(found).nb_channels == av.AudioLayout(layout).nb_channels


def test_a_track_that_cannot_be_carried_is_named(monkeypatch):
    monkeypatch.setattr(audio, "_MAX_RATE", 40000)
    clip = media.open_clip(io.BytesIO(tone(pictures=grey_yuv(24))))
    assert clip.audio is None
    assert [n.kind for n in clip.notices] == ["lost"] and "48000" in clip.notices[0].text


def test_a_track_no_record_describes_is_re_encoded(monkeypatch):
    monkeypatch.setattr(audio, "_fmt_chunk", lambda sound: b"")
    data = tone("adpcm_ima_wav", "stereo", 1.0, "avi", grey_yuv(24))
    clip = media.open_clip(io.BytesIO(data))
    assert [n.kind for n in clip.notices] == ["note"] and clip.audio.codec == "flac"
    with av.open(io.BytesIO(data)) as box:
        wanted = np.concatenate([lossless.samples(frame) for frame in box.decode(audio=0)])
    track = clip.audio
    assert np.array_equal(audio.joined(audio.decoded(audio.decoder(track), track)), wanted)


def test_a_few_bytes_do_not_become_hours():
    coder = av.CodecContext.create("flac", "w")
    coder.sample_rate, coder.layout, coder.format = 8000, "mono", "s16"
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 4608), np.int16), "s16", "mono")
    frame.sample_rate, frame.pts, frame.time_base = 8000, 0, Fraction(1, 8000)
    packet = bytes([*coder.encode(frame), *coder.encode(None)][0])
    packets = tuple(Packet(n, 1, packet) for n in range(1000))
    hour = Audio("flac", 8000, "mono", Fraction(1, 8000), coder.extradata, packets)
    with pytest.raises(MediaError, match="more than its packets last"):
        audio.joined(audio.decoded(audio.decoder(hour), hour))


def test_gaps_of_years_are_not_filled(tmp_path):
    packets = (Packet(0, 100, bytes(100)), Packet(10**9, 100, bytes(100)))
    track = Audio("pcm_u8", 8000, "mono", Fraction(1, 8000), b"", packets)
    with pytest.raises(MediaError, match="gaps.*--no-audio"):
        media.write(Video(smooth(2), Fraction(24), audio=track), tmp_path / "a.mp4")
