"""The codec's face: everything that a program needs to encode and decode."""

from gvcc.decode.session import Event, Progress
from gvcc.decoder import Decoder, decode
from gvcc.encoder import Encoding, Part, encode, encode_parts
from gvcc.search.resume import Begun

__all__ = [
    "Begun",
    "Decoder",
    "Encoding",
    "Event",
    "Part",
    "Progress",
    "decode",
    "encode",
    "encode_parts",
]
