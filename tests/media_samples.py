"""Small pictures and files that the tests of media.py and colour.py read and write."""

import io
import subprocess
from fractions import Fraction

import av
import numpy as np

WEIGHTS = {"bt709": (0.2126, 0.0722), "bt601": (0.299, 0.114), "bt2020nc": (0.2627, 0.0593)}
CODES = {"bt709": 1, "bt601": 6, "bt2020nc": 9}
BARS = np.array(
    [(30, 200, 0), (255, 0, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0), (200, 120, 60)], np.uint8
)


def bars(height=32, width=16):
    """Vertical bars of known colours, [H, 6 W, 3]."""
    return np.repeat(np.repeat(BARS[None], width, 1), height, 0)


def smooth(count=4, height=48, width=64):
    """A moving, smooth and colourful clip that survives 4:2:0."""
    t, y, x = np.mgrid[:count, :height, :width].astype(float)
    waves = [np.sin(x / 9 + t / 3), np.cos(y / 11 - t / 5), np.sin((x + y) / 17)]
    return np.rint(128 + 90 * np.stack(waves, -1)).astype(np.uint8)


def yuv_planes(rgb, matrix, full, bits):
    """Y'CbCr 4:4:4 as BT.709/BT.2020 define it, without the code under test."""
    kr, kb = WEIGHTS[matrix]
    r, g, b = np.moveaxis(rgb / 255.0, -1, 0)
    y = kr * r + (1 - kr - kb) * g + kb * b
    cb, cr = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
    step, top = 2 ** (bits - 8), 2**bits - 1
    if full:
        planes = [y * top, cb * top + 128 * step, cr * top + 128 * step]
    else:
        planes = [(16 + 219 * y) * step] + [(128 + 224 * c) * step for c in (cb, cr)]
    return [np.rint(p).clip(0, top).astype(np.uint16 if bits > 8 else np.uint8) for p in planes]


def picture(planes, form):
    frame = av.VideoFrame(planes[0].shape[1], planes[0].shape[0], form)
    for plane, values in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        data = np.ascontiguousarray(values).view(np.uint8).reshape(plane.height, -1)
        rows[:, : data.shape[1]] = data
        plane.update(rows.tobytes())
    return frame


def store(pictures, muxer="matroska", codec="ffv1", rate=24, pts=None, base=None, **tags):
    """The bytes of a file with these `av.VideoFrame`s; `pts` count in `base` seconds."""
    file = io.BytesIO()
    options = {"avoid_negative_ts": "disabled"} if pts and min(pts) < 0 else {}
    with av.open(file, "w", format=muxer, options=options) as box:
        stream = box.add_stream(codec, rate=Fraction(rate))
        stream.width, stream.height = pictures[0].width, pictures[0].height
        stream.pix_fmt = pictures[0].format.name
        if base is not None:
            stream.codec_context.time_base = stream.time_base = base
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for number, frame in enumerate(pictures):
            frame.pts = number if pts is None else pts[number]
            frame.time_base = 1 / Fraction(rate) if base is None else base
            box.mux(stream.encode(frame))
        box.mux(stream.encode(None))
    return file.getvalue()


def numbered(count, height=16, width=16):
    """Grey pictures whose level tells their number: 2 levels apart, full-range grey ffv1."""
    levels = [np.full((height, width), 2 * n, np.uint8) for n in range(count)]
    return [av.VideoFrame.from_ndarray(level, format="gray") for level in levels]


def grey_yuv(count):
    return [
        picture(
            [np.full((32, 32), 50 + n, np.uint8)] + [np.full((16, 16), 128, np.uint8)] * 2,
            "yuv420p",
        )
        for n in range(count)
    ]


def numbers(video):
    return (video.frames[:, 0, 0, 0] // 2).tolist()


def tone(codec="aac", layout="stereo", seconds=1.0, muxer="mp4", pictures=(), late=0.0, rate=48000):
    """A file with a tone; with `pictures` at 24/s too, which start `late` seconds after it."""
    file = io.BytesIO()
    with av.open(file, "w", format=muxer) as box:
        video = None
        if pictures:
            video = box.add_stream("libx264" if muxer in ("flv", "mov", "mp4") else "ffv1", rate=24)
            video.width, video.height = pictures[0].width, pictures[0].height
            video.pix_fmt = pictures[0].format.name
        audio = box.add_stream(codec, rate=rate, layout=layout)
        if codec == "wmav2":  # has no default
            audio.bit_rate = 128000
        for number, frame in enumerate(pictures):
            frame.pts, frame.time_base = number + round(late * 24), Fraction(1, 24)
            box.mux(video.encode(frame))
        wave = np.sin(np.arange(int(seconds * rate)) / 17) * 8000
        wave += np.random.default_rng(0).normal(0, 300, wave.size)
        samples = np.repeat(wave.astype(np.int16), 2 if layout == "stereo" else 1)[None]
        sound = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        sound.sample_rate, sound.pts = rate, 0
        box.mux(audio.encode(sound))
        for stream in (video, audio):
            if stream:
                box.mux(stream.encode(None))
    return file.getvalue()


def raw_audio(data):
    with av.open(io.BytesIO(data)) as box:
        stream = box.streams.audio[0]
        return [(p.pts * p.time_base, bytes(p)) for p in box.demux(stream) if p.size]


def psnr(a, b):
    return 10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9))


def leftovers(folder):
    return sorted(entry.name for entry in folder.iterdir())


PATTERN = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=24:d=2")
LEVELS = ("-f", "lavfi", "-i", "nullsrc=s=64x48:r=24:d=2,geq=lum='17+4*N':cb=128:cr=128")
SINE = ("-f", "lavfi", "-i", "sine=r=48000:d=2")
PAUSE = ("-vf", "setpts='if(lt(N,24),N,N+240)/24/TB'", "-fps_mode", "vfr")  # 10 s after 24 pictures


def ffmpeg(*args):
    """Run the ffmpeg of imageio-ffmpeg; what is last is the file it makes, which is returned."""
    from imageio_ffmpeg import get_ffmpeg_exe

    command = [get_ffmpeg_exe(), "-v", "error", "-y", *map(str, args)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=120)
    return args[-1]


def told(clip, kind=None):
    """What a clip's notices say, of one kind or all."""
    return [notice.text for notice in clip.notices if kind in (None, notice.kind)]
