"""Published models on the command line, with tiny weights: settings, `gvcc priors`, coded files."""

import json
import re
import shutil
import subprocess
import sys
from fractions import Fraction
from functools import lru_cache

import cli_runner
import huggingface_hub.constants
import pytest
import tiny_models
import torch
from cli_runner import GVCC
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from gvcc import priors
from gvcc.errors import BadSetting
from gvcc.format import bitstream, parser
from gvcc.format.bitstream import Header
from gvcc.pictures import media
from gvcc.pictures.media import Video
from gvcc.priors import MODELS, diffusion, settings, store
from gvcc.records import Colour

T2V, COG = "wan2.1-t2v-1.3b", "cogvideox-2b"
SMALL = ["--gop", "9", "--bpp", "0.3"]

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GVCC_CACHE", str(tmp_path / "cache"))
    for name in ("HF_HUB_OFFLINE", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Measuring the autoencoder's sensitivity takes longer than all the rest."""
    monkeypatch.setattr(diffusion, "sensitivity", lambda _, channels, *more: [2.0] * channels)


@pytest.fixture(scope="module")
def made(tmp_path_factory, one_thread):
    at = tmp_path_factory.mktemp("models")
    return lru_cache(lambda name, seed=0: tiny_models.make(name, at, seed))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "small.y4m"
    media.write(Video(cli_runner.frames(9, 34, 50), Fraction(25)), path)
    return path


@pytest.fixture
def prepared(run, made):
    done = run("priors", "prepare", T2V, "--weights", made(T2V))
    assert done.code == 0
    return made(T2V)


# -- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("colour", "red", "prior m has no setting 'colour'; it has prompt, negative, guidance"),
        ("dtype", "fp16", "dtype is 'fp16', expected bf16 or fp32"),
        ("timesteps", "int", "timesteps is 'int', expected fp32 or bf16"),
        ("quant", "int4", "quant is 'int4', expected none or int8 or fp8"),
        ("compile", "", "compile is '', expected no or yes"),
        *(("guidance", t, "expected a number from 0 to 100")
          for t in ("", "x", "nan", "inf", "-1", "100.1")),
        *(("tile", t, "expected auto, 0 or a multiple of")
          for t in ("", "x", "-64", "31", "8256", "64.0", "٦٤", "0" * 5000)),
        ("prompt", "a \udcff", "prompt is 'a \\udcff'"),
    ],
)  # fmt: skip
def test_a_bad_setting_gets_a_sentence(name, text, says):
    with pytest.raises(BadSetting) as caught:
        settings.parse("m", {name: text})
    assert says in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "spelled"),
    [
        ("guidance", "1.50", "1.5"), ("guidance", "1e1", "10"), ("guidance", "-0", "0"),
        ("guidance", "5.00000001", "5"), ("guidance", "100", "100"), ("tile", "0128", "128"),
        ("tile", "00", "0"), ("tile", "8192", "8192"), ("prompt", " a  b ", " a  b "),
    ],
)  # fmt: skip
def test_a_value_has_one_spelling(name, text, spelled):
    found = settings.parse("m", {name: text})
    assert found.changed == ((name, spelled),)
    assert settings.parse("m", dict(found.changed)) == found


def test_a_file_carries_what_is_not_as_usual():
    usual = {n: getattr(settings.Settings(), n) for n in settings.Settings.__dataclass_fields__}
    assert settings.parse("m", usual).changed == settings.parse("m", {}).changed == ()
    given = {"tile": "256", "guidance": "1.0", "dtype": "fp32", "compile": "yes", "prompt": ""}
    names = [n for n, _ in settings.parse("m", given).changed]
    assert names == ["compile", "dtype", "tile"]


_TEXT = st.text(st.characters(codec="utf-8"), max_size=200)
_SETTINGS = st.fixed_dictionaries({}, optional={
    "prompt": _TEXT, "negative": _TEXT, "attention": _TEXT,
    "guidance": st.floats(0, 100).map(str),
    "tile": st.sampled_from(["auto", "0", "256", "0064"]),
    **{name: st.sampled_from(choices) for name, choices in settings.CHOICES.items()},
})  # fmt: skip


@trials(max_examples=60, deadline=None)
@given(_SETTINGS)
def test_settings_survive_a_header(asked):
    chosen = settings.parse("m", asked)
    header = Header(
        prior="m", digest=bytes(8), width=48, height=32, frames=7, fps=Fraction(25),
        colour=Colour(), gop=5, overlap=0, path="rf", rule="posterior", coder="hadamard",
        allocation="matched", codebook_size=0, seed=1, steps=20, ode_steps=5, shift=3.0,
        g_scale=0.0, knob=1.0, multistep=True, audio=False, settings=chosen.changed,
    )  # fmt: skip
    back = parser.read_header(bitstream.write_header(header))[0]
    assert back == header and back.version == (3 if chosen.changed else 2)
    assert settings.parse("m", dict(back.settings)) == chosen


def test_tiles_only_where_pictures_are_large():
    auto, none, own = (settings.parse("m", {"tile": t}) for t in ("auto", "0", "128"))
    assert [s.tiles(1280 * 720) for s in (auto, none, own)] == [0, 0, 128]
    assert [s.tiles(1920 * 1088) for s in (auto, none, own)] == [256, 0, 128]


# -- the steering metric


def test_the_metric_is_normalised(made):
    r, gains = torch.linspace(-1, 1, 64).reshape(16, 1, 2, 2), torch.tensor([0.1, 0.4] * 8)

    def metric(sensitivities):
        prior = priors.load(f"{T2V}:{made(T2V)}")
        store.remember("sensitivities", prior.spec.digest.hex(), sensitivities.tolist())
        return prior.spec.metric(r, 1.0)

    want = r * ((gains / gains.square().mean().sqrt()) ** 0.75)[:, None, None, None]
    assert torch.allclose(metric(torch.full((16,), 0.3)), r)
    assert torch.allclose(metric(gains), want)
    assert torch.allclose(metric(7 * gains), want)


def test_sensitivities_of_another_number_of_channels_are_measured_anew(made):
    prior = priors.load(f"{T2V}:{made(T2V)}")
    key = prior.spec.digest.hex()
    store.remember("sensitivities", key, [1.0] * 3)
    assert prior.sensitivities == store.recall("sensitivities")[key] == [2.0] * 16


# -- gvcc priors ------------------------------------------------------------------------------


def test_the_list_loads_no_model_and_says_what_to_do():
    code = (
        "import sys; from gvcc import cli; sys.argv = ['gvcc', 'priors']\n"
        "try: cli.main()\n"
        "finally: assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    text = done.stdout
    for name, model in MODELS.items():
        assert f"\n{name}: gvcc priors prepare {name}\n" in text
        assert re.search(rf"^ *{re.escape(name)} +{model.modes[0]} +", text, re.M)
    assert re.search(r"^ *nano +t2v", text, re.M) and re.search(r"^ *gauss +t2v", text, re.M)


def test_the_list_as_json(run, made):
    rows = {r["name"]: r for r in json.loads(run("priors", "--json").out)}
    assert rows.keys() == {"nano", "gauss", *MODELS}
    assert rows["nano"]["folder"] == "in the package" and rows["nano"]["hub"] is None
    assert {r["folder"] for n, r in rows.items() if n in MODELS} == {None}
    assert rows["wan2.2-t2v-a14b"] == {
        "name": "wan2.2-t2v-a14b", "modes": ["t2v", "overlap"], "parameters": 28580000000,
        "weights_gb": pytest.approx(57.16), "disk_gb": None, "licence": "Apache-2.0",
        "folder": None, "hub": "Wan-AI/Wan2.2-T2V-A14B-Diffusers",
    }  # fmt: skip
    store.register(MODELS[T2V], made(T2V))
    row = json.loads(run("priors", "--json").out)[2]
    assert (row["name"], row["folder"]) == (T2V, str(made(T2V)))
    size = sum(p.stat().st_size for p in made(T2V).rglob("*") if p.is_file())
    assert row["disk_gb"] == pytest.approx(size / 1e9)
    assert f"\n{T2V}: in {made(T2V)}\n" in run("priors").out.decode()


def test_prepare_keeps_what_is_made_once(run, made, cache, monkeypatch):
    monkeypatch.chdir(made(T2V).parent)
    done = run("priors", "prepare", T2V, "--weights", made(T2V).name, "--json")
    report = json.loads(done.out)
    assert (done.code, report["name"], report["folder"]) == (0, T2V, made(T2V).name)
    assert (report["modes"], report["sensitivities"]) == (["t2v", "overlap"], [2.0] * 16)
    assert re.fullmatch("[0-9a-f]{16}", report["digest"])
    assert done.err.splitlines() == [
        f"{T2V}: checking {made(T2V).name}",
        f"{T2V}: the embedding of the empty prompt (a minute or more if it is not there yet)",
        f"{T2V}: the autoencoder's sensitivity",
        f"{T2V}: what the network leaves of a latent (9 calls on a small clip)",
        f"{T2V}: ready, weights {report['digest']}",
    ]
    assert store.recall("folders") == {T2V: str(made(T2V))}
    assert store.recall("sensitivities") == {report["digest"]: [2.0] * 16}
    assert store.recall("variances") == {report["digest"]: report["variances"]}
    assert len(report["variances"]) == 9 + 16
    assert len(list((cache / "prompts").iterdir())) == 1
    monkeypatch.chdir("/")
    assert json.loads(run("priors", "prepare", T2V, "--json").out)["digest"] == report["digest"]


def test_prepare_fetches_what_is_needed(run, made, monkeypatch):
    asked = []

    def fetch(hub, allow_patterns=None, local_files_only=False):
        if local_files_only:
            raise OSError
        asked.append((hub, allow_patterns))
        return str(made(T2V))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    done = run("priors", "prepare", T2V)
    assert done.code == 0 and f"{T2V}: fetching {MODELS[T2V].hub} (about 26 GB" in done.err
    assert run("priors", "prepare", T2V, "--from", "me/mine").code == 0
    assert [hub for hub, _ in asked] == [MODELS[T2V].hub, "me/mine"]
    assert {"model_index.json", "transformer/*", "vae/*", "text_encoder/*", "tokenizer/*"} <= {
        *asked[0][1]
    }

    def offline(*_, **__):
        raise RuntimeError("no network\nat all")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    done = run("priors", "prepare", COG, "--from", "me/mine")
    assert (done.code, done.out) == (2, b"")
    assert done.err.splitlines()[-1] == (
        "gvcc: me/mine cannot be fetched: no network; with the weights in a folder: "
        "--weights FOLDER"
    )


def test_prepare_refuses(run, made, tmp_path):
    half = shutil.copytree(made(T2V), tmp_path / "half")
    next((half / "vae").glob("*.safetensors")).unlink()
    for args, says in (
        (("wan2.1-t2v-1.3", "--weights", half), f"did you mean '{T2V}'?"),
        (("nano",), "unknown model 'nano'; known: wan2.1-t2v-1.3b"),
        ((T2V, "--weights", half, "--from", "a/b"), "give --weights or --from, not both"),
        ((T2V, "--weights", tmp_path / "none"), f"{tmp_path / 'none'} is no folder"),
        ((T2V, "--weights", half), f"there are no weights in {half / 'vae'}"),
        ((COG, "--weights", made(T2V)), COG),
    ):
        done = run("priors", "prepare", *args)
        assert (done.code, done.out) == (2, b"") and store.recall("folders") == {}
        assert done.err.splitlines()[-1].startswith("gvcc: ") and says in done.err


# -- encode and decode ------------------------------------------------------------------------


def lines(text):
    """Of stderr; numbers and times aside."""
    return [re.sub(r"[\d.]+", "#", line) for line in text.splitlines()]


def test_round_trip_in_other_processes(run, prepared, small, tmp_path):
    """Nothing but our own lines is told, and nothing is on stdout."""
    coded, clip = tmp_path / "a.gvcc", tmp_path / "a.y4m"
    given = ["--prompt", "a fox é", "--guidance", "2.50", "--set", "dtype=fp32", "--set",
             "negative=water", "--prior", T2V, "--verify"]  # fmt: skip
    told = [
        subprocess.run([*GVCC, *map(str, args)], capture_output=True, text=True)
        for args in (["encode", small, "-o", coded, *given, *SMALL], ["decode", coded, "-o", clip])
    ]
    assert [(t.returncode, t.stdout) for t in told] == [(0, "")] * 2
    step = "gop #/#, step #/#, # kB"
    assert lines(told[0].stderr) == [
        f"encode: {step}", f"verify: {step}",
        *lines(f"{coded}: 0 bytes, 0 bit/pixel, 0 kbit/s; 9 frames 0x0 in 0 s, verified"),
    ]  # fmt: skip
    assert lines(told[1].stderr) == [
        f"decode: {step}",
        *lines(f"{clip}: 9 frames 0x0, 0 fps in 0 s"),
    ]
    about = json.loads(run("inspect", coded, "--json").out)
    assert (about["version"], about["header"]["prior"]) == (3, T2V)
    assert about["header"]["settings"] == {
        "dtype": "fp32", "guidance": "2.5", "negative": "water", "prompt": "a fox é",
    }  # fmt: skip
    shown = run("inspect", coded).out.decode()
    assert "guidance 2.5" in " ".join(shown.replace("│", " ").split())
    assert run("decode", coded, "-o", tmp_path / "b.y4m").code == 0
    assert (tmp_path / "b.y4m").read_bytes() == clip.read_bytes()


def test_a_file_needs_its_models_weights(run, made, prepared, small, tmp_path, cache):
    coded = tmp_path / "a.gvcc"
    assert run("encode", small, "-o", coded, "--prior", T2V, *SMALL, "--offload").code == 0
    assert json.loads(run("inspect", coded, "--json").out)["version"] == 2
    assert run("decode", coded, "-o", tmp_path / "a.y4m", "--offload").code == 0
    (cache / "folders.json").unlink()
    done = run("decode", coded, "-o", tmp_path / "b.y4m")
    assert done.code == 2 and done.err.count("\n") == 1
    assert f"run `gvcc priors prepare {T2V} --from {MODELS[T2V].hub}`" in done.err
    other = f"{T2V}:{made(T2V, 1)}"
    done = run("decode", coded, "-o", tmp_path / "b.y4m", "--prior", other)
    assert done.code == 1 and done.err.count("\n") == 1
    assert re.search(r"with weights \w{16}; here is wan2.1-t2v-1.3b with weights \w{16}$", done.err)
    own = f"{T2V}:{prepared}"
    assert run("decode", coded, "-o", tmp_path / "b.y4m", "--prior", own).code == 0
    assert (tmp_path / "b.y4m").read_bytes() == (tmp_path / "a.y4m").read_bytes()


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--prior", T2V, "--set", "dtype"], "--set 'dtype': expected NAME=VALUE"),
        (["--prior", T2V, "--set", "dtype=fp16"], "dtype is 'fp16', expected bf16 or fp32"),
        (["--prior", T2V, "--set", "dtyp=fp32"], f"prior {T2V} has no setting 'dtyp'; it has"),
        (["--prior", T2V, "--set", "=1"], "has no setting ''"),
        (["--prior", T2V, "--prompt", "a", "--set", "prompt=b"], "setting prompt is given twice"),
        (["--prior", T2V, "--set", "tile=0", "--set", "tile=0"], "setting tile is given twice"),
        (["--prior", T2V, "--guidance", "101"], "guidance is '101.0', expected a number from 0"),
        (["--prior", T2V, "--guidance", "nan"], "guidance is 'nan', expected a number from 0"),
        (["--prior", T2V, "--prompt", "a \udcff"], "prompt is 'a \\udcff'"),
        (["--prior", T2V], "gvcc priors prepare"),
        (["--prior", "HERE", "--prompt", "a" * 4097], "4097 bytes"),
        (["--prior", "HERE", "--mode", "i2v"], f"prior {T2V} has no mode i2v; it has t2v, overlap"),
        (["--prior", "HERE", "--set", "attention=no"], "attention 'no': "),
        (["--prior", "HERE", "--reuse", "0"], "reuse is 0, expected 1 to 255"),
        (["--prior", "HERE", "--reuse", "2", "--preset", "free-gvc"], "reuse does not go with"),
        (["--prior", f"{T2V}:/none"], "/none is no folder"),
        (["--prior", "nano", "--guidance", "2"], "prior nano has no settings, but was given guida"),
        (["--prior", "gauss", "--prompt", "a"], "prior gauss has no settings, but was given pro"),
        (["--offload"], "prior nano is small enough: nothing to offload"),
    ],
)  # fmt: skip
def test_refused_with_one_line(run, made, small, tmp_path, args, says):
    args = [f"{T2V}:{made(T2V)}" if a == "HERE" else a for a in args]
    done = run("encode", small, "-o", tmp_path / "a.gvcc", *args)
    assert (done.code, done.out) == (2, b"")
    assert says in done.err
    assert done.err.startswith("gvcc: ") and done.err.count("\n") == 1
    assert not list(tmp_path.glob("a.gvcc*"))


def test_a_guidance_that_is_no_number(run, small, tmp_path):
    done = run("encode", small, "-o", tmp_path / "a.gvcc", "--guidance", "x")
    assert (done.code, done.out) == (2, b"")
    assert "Invalid value for '--guidance'" in " ".join(done.err.replace("│", " ").split())


def test_prepare_refuses_weights_that_are_not_those_of_the_configuration(run, tmp_path):
    folder = tiny_models.make(T2V, tmp_path)
    at = folder / "transformer/config.json"
    said = json.loads(at.read_text())
    for layers, says in ((3, "does not hold the weights of its config.json: 27 tensors"),
                         (1, "27 tensors are missing, too many or of another shape"),
                         ("two", "config.json is damaged")):  # fmt: skip
        at.write_text(json.dumps(said | {"num_layers": layers}))
        done = run("priors", "prepare", T2V, "--weights", folder)
        assert done.code == 2 and says in done.err and "ready" not in done.err, (layers, done.err)


def test_prepare_refuses_shards_without_their_index(run, tmp_path):
    folder = tiny_models.make(T2V, tmp_path)
    at = folder / "transformer/diffusion_pytorch_model.safetensors"
    at.rename(at.with_name("diffusion_pytorch_model-00001-of-00002.safetensors"))
    done = run("priors", "prepare", T2V, "--weights", folder)
    assert done.code == 2 and "shards without their index.json" in done.err


def test_prepare_says_if_nothing_can_be_kept(run, tmp_path, monkeypatch):
    monkeypatch.setenv("GVCC_CACHE", "/proc/nope")
    done = run("priors", "prepare", T2V, "--weights", tiny_models.make(T2V, tmp_path))
    assert done.code == 2 and "the cache /proc/nope cannot be written" in done.err
