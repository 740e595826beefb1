"""The published models that may be priors: what is known of them without their weights.

Facts are those of the model cards and configurations of the hub repositories in diffusers' layout;
parameters are counted from the configurations. Nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """One published model.

    `family` names the file that runs it. `hub` is the repository its weights come from. `modes` are
    gop.MODES that it can do, its own first. `parameters` counts those of the network that is called
    at each step, and `experts` how many such networks there are. `shifts` are the flow shifts
    published for up to 480 lines and above. `gop` is the GOP length it does best, in frames.
    """

    name: str
    family: str
    hub: str
    modes: tuple[str, ...]
    parameters: float
    licence: str
    shifts: tuple[float, float] = (3.0, 3.0)
    gop: int = 33
    images: bool = False
    experts: int = 1

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders whose weights make the output, besides the text encoder's."""
        experts = ("transformer", "transformer_2")[: self.experts]
        return (*experts, "vae", *(("image_encoder",) if self.images else ()))

    @property
    def gigabytes(self) -> float:
        """Of the networks' weights in bfloat16."""
        return 2 * self.parameters * self.experts / 1e9


_T2V, _OVERLAP = ("t2v", "overlap"), "overlap"
# I2V and FLF2V: 3 up to 480 lines, 5 above, as the published runner chooses; T2V always 3.
_BY_SIZE = (3.0, 5.0)
_APACHE = "Apache-2.0"

_ALL = (
    Model("wan2.1-t2v-1.3b", "wan", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", _T2V, 1.42e9, _APACHE),
    Model("wan2.1-t2v-14b", "wan", "Wan-AI/Wan2.1-T2V-14B-Diffusers", _T2V, 14.29e9, _APACHE),
    Model("wan2.1-i2v-14b-480p", "wan", "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers", ("i2v",), 16.39e9,
          _APACHE, _BY_SIZE, images=True),
    Model("wan2.1-i2v-14b-720p", "wan", "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers", ("i2v",), 16.39e9,
          _APACHE, _BY_SIZE, images=True),
    Model("wan2.1-flf2v-14b-720p", "wan", "Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers", ("flf2v",),
          16.40e9, _APACHE, _BY_SIZE, images=True),
    Model("wan2.2-t2v-a14b", "wan", "Wan-AI/Wan2.2-T2V-A14B-Diffusers", _T2V, 14.29e9, _APACHE,
          experts=2),
    Model("wan2.2-ti2v-5b", "wan", "Wan-AI/Wan2.2-TI2V-5B-Diffusers", ("t2v", "i2v", _OVERLAP),
          5.00e9, _APACHE, _BY_SIZE),
    Model("cogvideox-2b", "cogvideox", "zai-org/CogVideoX-2b", _T2V, 1.69e9, _APACHE, gop=49),
    Model("cogvideox-5b", "cogvideox", "zai-org/CogVideoX-5b", _T2V, 5.57e9,
          "CogVideoX licence", gop=49),
)  # fmt: skip
MODELS = {m.name: m for m in _ALL}
