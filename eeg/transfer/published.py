"""Published weights of an encoder, from a file of the user's: .safetensors, or a state dict that
torch saved.

A safetensors file is eight bytes, the length of a header; the header, JSON of {name: {"dtype",
"shape", "data_offsets"}}; and the tensors one after the other. Nothing of it is trusted.
"""

import hashlib
import io
import json
import math
from pathlib import Path

import torch
from torch import nn

from eeg import UserError
from eeg.models import PUBLIC
from eeg.models.model import Model
from eeg.models.public import from_braindecode, renamed
from eeg.models.public.luna import SIZES
from eeg.models.transformer import Embedding
from eeg.transfer.begin import networks, stage_of

TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
TYPES |= {"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8}
TYPES |= {"U8": torch.uint8}
# parts of names in LUNA's own files: braindecode's
LUNA_OWN = {".channel_location_embedder.0.": ".channel_location_embedder."}
LUNA_OWN |= {".temparature": ".temperature"}
# what a file may have beside the encoder: heads of other tasks
HEADS = ("head.", "decoder_head.", "channel_emb.")

Tensors = dict[str, torch.Tensor]


class Published:
    """The weights of an encoder. Raises UserError for a file that is damaged, or of no encoder that
    is known.

    model, settings: what of eeg.models has these weights. tensors: by the names there.
    """

    def __init__(self, path: Path):
        self.path, self.name = Path(path), Path(path).name
        try:
            content = self.path.read_bytes()
        except OSError as e:
            raise UserError(f"{path} cannot be read: {e.strerror}") from None
        self.sha256 = hashlib.sha256(content).hexdigest()
        read = safetensors if self.path.suffix == ".safetensors" else state_dict
        try:
            self.tensors = from_braindecode(renamed(read(content), LUNA_OWN))
        except ValueError as e:
            raise UserError(f"{path} cannot be read as weights: {e}") from None
        self.model, self.settings = self._recognised()

    def _recognised(self):
        layers = {n.split(".")[2] for n in self.tensors if n.startswith("encoder.layers.")}
        if layers and "patch_embedding.mask_encoding" in self.tensors:
            return "cbramod", {"depth": len(layers)}
        if "cross_attn.query_embed" in self.tensors:
            width = self.tensors["cross_attn.query_embed"].shape[-1:]
            if size := [name for name, sizes in SIZES.items() if sizes[:1] == width]:
                return "luna", {"size": size[0]}
        raise UserError(
            f"the {len(self.tensors)} tensors of {self.path} are of no encoder that is known; "
            f"expected braindecode's weights of {' or '.join(PUBLIC)}"
        )

    def fitting(self, network: nn.Module) -> Tensors:
        """{name: tensor} for each tensor of the network but its head's. Raises UserError where one
        is missing, has another shape, or is left over."""
        found = {}
        for name, own in network.state_dict().items():
            if stage_of(network, name) is None:
                continue
            if name not in self.tensors:
                raise UserError(f"{self.path} has no tensor {name}, which {self.model} needs")
            if own.shape != self.tensors[name].shape:
                shapes = f"{list(self.tensors[name].shape)} in {self.path}, expected"
                raise UserError(f"{name} is {shapes} {list(own.shape)} for {self.model}")
            found[name] = self.tensors[name].to(own.dtype)
        if strange := [name for name in self.left(found) if not name.startswith(HEADS)]:
            what = f"{self.path} has {strange[0]}, and {self.model} with {self.settings} has not"
            raise UserError(f"{what}; these weights are of another network")
        return found

    def left(self, found: Tensors) -> list[str]:
        """What of the file is not among the tensors found."""
        return sorted(self.tensors.keys() - found)

    def embedding(self) -> Embedding:
        """What the encoder makes of windows, as numbers for a ridge."""
        made = Embedding(**self.encoder())
        made.network.load_state_dict(self.fitting(made.network))
        return made

    def encoder(self) -> dict:
        """The settings of its Embedding."""
        return {"name": self.model, "normalize": PUBLIC[self.model], **self.settings}


def begin(model: Model, published: Published) -> dict:
    """Give the model these weights; its head stays new. -> what was matched and what was left over,
    as config.json keeps it. Raises UserError where they do not fit."""
    state, new = model.state_dict(), []
    for prefix, network in networks(model).items():
        found = published.fitting(network)
        state |= {prefix + name: tensor for name, tensor in found.items()}
        new += [prefix + name for name in network.state_dict() if name not in found]
    model.load_state_dict(state)
    about = {"run": str(published.path), "sha256": published.sha256}
    return about | {"matched": sorted(found), "new": new, "not_used": published.left(found)}


def safetensors(content: bytes) -> Tensors:
    """The tensors of a .safetensors file. Raises ValueError, which says what is wrong."""
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or length > len(content) - 8:
        raise ValueError(f"its header would have {length} bytes, and it has {len(content)} in all")
    try:
        header = json.loads(content[8 : 8 + length].decode())
        header.pop("__metadata__", None)
        places = sorted((tuple(about["data_offsets"]), name) for name, about in header.items())
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
        raise ValueError("its header is not JSON of names and tensors") from None
    found, data, at = {}, memoryview(content)[8 + length :], 0
    for offsets, name in places:
        dtype, shape = header[name].get("dtype"), header[name].get("shape")
        if not isinstance(dtype, str) or dtype not in TYPES:
            raise ValueError(f"{name} has the unknown type {dtype}")
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"{name} has the shape {shape}")
        end = at + math.prod(shape) * TYPES[dtype].itemsize
        if offsets != (at, end) or end > len(data):
            should = f"{name} should lie at bytes {at} to {end} of {len(data)}"
            raise ValueError(f"{should}, and its header says {list(offsets)}")
        found[name] = torch.empty(shape, dtype=TYPES[dtype])
        if end > at:
            part = torch.frombuffer(bytearray(data[at:end]), dtype=TYPES[dtype])
            found[name] = part.view(shape)
        at = end
    if at != len(data):
        raise ValueError(f"{len(data) - at} bytes at its end belong to no tensor")
    return found


def state_dict(content: bytes) -> Tensors:
    """The tensors of a file of torch.save, of which no code is run. Raises ValueError."""
    try:
        found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as e:  # torch raises many kinds, and each means the same here
        said = (str(e).strip().splitlines() or [type(e).__name__])[0]
        raise ValueError(f"torch does not load it as weights alone ({said[:80]})") from None
    if not isinstance(found, dict) or not all(isinstance(n, torch.Tensor) for n in found.values()):
        raise ValueError("it is no state dict, which has tensors by their names")
    return found
