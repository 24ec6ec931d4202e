"""Published weights: files as bytes written here, what is refused of them, and runs that begin with
them."""

import json
import pickle
import shutil
import struct

import h5py
import numpy as np
import pytest
import torch

from eeg import UserError
from eeg.data.cache import cache_path
from eeg.models import build
from eeg.models.public import to_braindecode
from eeg.runs.run import find_runs
from eeg.transfer import begin as transfer
from eeg.transfer.published import Published, begin, safetensors, state_dict
from tests.train.trained import weights

TENSORS = {  # of several types; the first makes those after it lie at odd bytes
    "a": ("U8", np.array([7, 8, 255], np.uint8)),
    "b.weight": ("F32", np.array([[1.5, -2], [np.inf, 1e-40]], np.float32)),
    "empty": ("F32", np.zeros((0, 4), np.float32)),
    "half": ("F16", np.array([0.5, 65504], np.float16)),
    "scalar": ("F64", np.array(np.pi)),
    "steps": ("I64", np.array([-(2**60)])),
}


def packed(tensors, **changed):
    """A .safetensors file of {name: (type, array)}; changed: entries of its header, or None to
    leave one out."""
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, values) in tensors.items():
        data = values.tobytes()
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": offsets}
        body += data
    for name, entry in changed.items():
        header[name] = header[name] | entry if isinstance(entry, dict) else entry
    text = json.dumps({name: entry for name, entry in header.items() if entry is not None}).encode()
    return struct.pack("<Q", len(text)) + text + body


def test_reads_each_type_as_numpy_wrote_it():
    found = safetensors(packed(TENSORS))
    assert found.keys() == TENSORS.keys()
    for name, (_, values) in TENSORS.items():
        assert found[name].numpy().tobytes() == values.tobytes()
        assert found[name].numpy().dtype == values.dtype and found[name].shape == values.shape
    # bfloat16 is the upper half of float32
    upper = np.array([0x3FC0, 0xC000], "<u2")
    assert safetensors(packed({"x": ("BF16", upper)}))["x"].tolist() == [1.5, -2.0]


GOOD = packed(TENSORS)
DAMAGED = {
    "nothing": (b"", "its header would have 0 bytes"),
    "seven bytes": (GOOD[:7], "its header would have"),
    "a header beyond the file": (
        struct.pack("<Q", 2**63) + GOOD[8:],
        "would have 92233720368547758",
    ),
    "one byte less": (GOOD[:-1], r"steps should lie at bytes 31 to 39 of 38"),
    "one byte more": (GOOD + b"x", "1 bytes at its end belong to no tensor"),
    "no JSON": (struct.pack("<Q", 4) + b"{]]}", "is not JSON of names"),
    "no text": (struct.pack("<Q", 4) + b"\xff\xfe{}", "is not JSON of names"),
    "a list": (struct.pack("<Q", 2) + b"[]", "is not JSON of names"),
    "too deep": (struct.pack("<Q", 200_000) + b"[" * 200_000, "is not JSON of names"),
    "no offsets": (packed(TENSORS, a=[1]), "is not JSON of names"),
    "offsets of text": (packed(TENSORS, a={"data_offsets": ["0", 3]}), "is not JSON of names"),
    "one offset": (packed(TENSORS, a={"data_offsets": [0]}), r"a should lie .* says \[0\]"),
    "overlapping": (packed(TENSORS, half={"data_offsets": [17, 21]}), "should lie at bytes"),
    "a gap": (packed(TENSORS, half=None), r"scalar should lie at bytes 19 to 27 of 39"),
    "backwards": (packed(TENSORS, a={"data_offsets": [3, 0]}), "should lie at bytes"),
    "before the file": (packed(TENSORS, a={"data_offsets": [-3, 0]}), "should lie at bytes 0 to 3"),
    "far away": (packed(TENSORS, steps={"data_offsets": [31, 2**62]}), "should lie at bytes"),
    "enormous": (
        packed(TENSORS, steps={"shape": [2**40, 2**40], "data_offsets": [31, 2**83 + 31]}),
        "steps should lie at bytes 31 to",
    ),
    "another size": (packed(TENSORS, a={"shape": [2]}), "a should lie at bytes 0 to 2"),
    "less than none": (packed(TENSORS, a={"shape": [-3]}), r"a has the shape \[-3\]"),
    "half a number": (packed(TENSORS, a={"shape": [3.0]}), r"a has the shape \[3.0\]"),
    "no shape": (packed(TENSORS, a={"shape": None}), "a has the shape None"),
    "an unknown type": (packed(TENSORS, a={"dtype": "F8_E4M3"}), "a has the unknown type F8_E4M3"),
    "a type that is none": (packed(TENSORS, a={"dtype": [1]}), "a has the unknown type"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_refused(damage, tmp_path):
    content, message = DAMAGED[damage]
    with pytest.raises(ValueError, match=message):
        safetensors(content)
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(UserError, match=f"x.safetensors cannot be read as weights: .*{message}"):
        Published(tmp_path / "x.safetensors")


class Code:
    """What a pickle may ask for: a call."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_file_of_torch_is_read_without_its_code(tmp_path):
    torch.save({"a": torch.arange(3)}, tmp_path / "good.pt")
    good = (tmp_path / "good.pt").read_bytes()
    assert state_dict(good)["a"].tolist() == [0, 1, 2]
    torch.save({"a": Code(str(tmp_path / "run"))}, tmp_path / "bad.pt")
    torch.save({"settings": {}, "state": {"a": torch.zeros(1)}}, tmp_path / "run.pt")
    for content, message in (
        ((tmp_path / "bad.pt").read_bytes(), "torch does not load it as weights alone"),
        (pickle.dumps(Code(str(tmp_path / "run")), 2), "torch does not load it as weights alone"),
        (good[: len(good) // 2], "torch does not load it as weights alone"),
        (b"", "torch does not load it as weights alone"),
        ((tmp_path / "run.pt").read_bytes(), "it is no state dict"),
    ):
        with pytest.raises(ValueError, match=message):
            state_dict(content)
    assert not (tmp_path / "run").exists()


# -------------------------------------------------------------------------- what a model takes over


def network(name, seed=0, **settings):
    torch.manual_seed(seed)
    settings = {"cbramod": {"depth": 2}, "luna": {}}[name] | settings
    return build(name, n_outputs=3, **settings)


def theirs(name, **settings):
    """{braindecode's name: tensor}"""
    return to_braindecode(network(name, 1, **settings).network.state_dict())


def written(path, state):
    tensors = {name: ("F32", value.detach().numpy()) for name, value in state.items()}
    path.write_bytes(packed(tensors))
    return path


FILES = [("cbramod", {}), ("luna", {}), ("luna", {"size": "large"})]


@pytest.mark.parametrize("name, settings", FILES)
def test_every_tensor_but_the_heads_is_the_files(name, settings, tmp_path):
    state = theirs(name, **settings)
    published = Published(written(tmp_path / "x.safetensors", state))
    assert published.model == name and published.settings.items() >= settings.items()
    for members in (1, 2) if name == "cbramod" else (1,):
        model = network(name, 2, members=members, **published.settings)
        before = {key: value.clone() for key, value in model.state_dict().items()}
        about = begin(model, published)
        for prefix, one in transfer.networks(model).items():
            for key, value in to_braindecode(one.state_dict()).items():
                if not key.startswith("final_layer."):
                    assert torch.equal(value, state[key]), key
        heads = [key for key in before if ".head." in key]
        assert sorted(about["new"]) == sorted(heads)
        assert all(torch.equal(model.state_dict()[key], before[key]) for key in heads)
        own = len(model.network.networks[0].head.state_dict() if members == 2 else heads)
        assert len(about["matched"]) == len(state) - own and len(about["not_used"]) == own
    # what makes tokens and each layer are stages, in which nothing but the head has no place
    one = transfer.networks(model).popitem()[1]
    placed = {transfer.stage_of(one, key) for key, _ in one.named_parameters()}
    assert placed == {None, *range(len(one.stages()))}


def test_lunas_own_names_are_known(tmp_path):
    """With heads of what it was trained on, and a learned number that is written otherwise."""
    state = {
        key.replace("embedder.fc", "embedder.0.fc").replace("temperature", "temparature"): value
        for key, value in theirs("luna").items()
        if not key.startswith("final_layer.")
    }
    state |= {"decoder_head.norm.weight": torch.ones(64), "channel_emb.x": torch.ones(90, 64)}
    about = begin(network("luna"), Published(written(tmp_path / "x.safetensors", state)))
    assert about["not_used"] == ["channel_emb.x", "decoder_head.norm.weight"]
    assert len(about["matched"]) == len(state) - 2


def without(state, name):
    return {key: value for key, value in state.items() if key != name}


CBRAMOD = "encoder.layers.1.linear2.bias"


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda s: without(s, CBRAMOD), f"has no tensor {CBRAMOD}, which cbramod needs"),
        (
            lambda s: s | {CBRAMOD: torch.zeros(1, 200)},
            r"bias is \[1, 200\] in .*, expected \[200\]",
        ),
        (lambda s: s | {"more": torch.zeros(3)}, "has more, and cbramod with .*another network"),
        (lambda s: {"encoder.x": torch.zeros(1)}, "the 1 tensors of .* are of no encoder that is"),
        (lambda s: {}, "the 0 tensors of .* expected braindecode's weights of cbramod or luna"),
        (lambda s: s | {"head.1.bias": torch.zeros(3)}, "two tensors would be head.1.bias"),
        (lambda s: {"cross_attn.query_embed": torch.zeros(1, 4, 65)}, "are of no encoder that is"),
        (lambda s: {"cross_attn.query_embed": torch.tensor(1.0)}, "are of no encoder that is"),
    ],
)
def test_weights_of_another_network_are_refused(change, message, tmp_path):
    path = written(tmp_path / "x.safetensors", change(theirs("cbramod")))
    with pytest.raises(UserError, match=message):
        begin(network("cbramod"), Published(path))


# ------------------------------------------------------------------------------------------- a run


TUNE = ("--challenge", 1, "--epochs", 1, "--amp", "off", "--max-recordings", 1, "--blend", "none")


@pytest.fixture
def file(tmp_path):
    """Of cbramod with one layer, as torch saves it."""
    torch.save(theirs("cbramod", depth=1, pool="none"), tmp_path / "cbramod.pth")
    return tmp_path / "cbramod.pth"


def test_a_run_begins_with_a_file_and_says_how_much(train, file):
    state = torch.load(file)
    printed = train.other("train", *TUNE, "--init", file, "--freeze", 1)
    assert (
        f"init    {len(state) - 2} tensors from cbramod.pth; 2 of this model are new, " in printed
    )
    assert "2 of its own are left over (head)" in printed
    (run,) = find_runs(train.out)
    assert run.config["model"]["name"] == "cbramod" and run.config["model"]["depth"] == 1
    assert run.config["train"]["normalize"] == "hundreds"
    saved = weights(run.folder)
    moved = {key for key, value in to_braindecode(own(saved)).items()
             if not key.startswith("final") and not torch.equal(value, state[key])}  # fmt: skip
    # its first stage makes the tokens
    assert moved and not [key for key in moved if key.startswith("patch_embedding")]
    # another run begins with this one, and a ridge with the file
    printed = train.other("train", *TUNE, "--init", run.folder, "--lora", 1)
    assert f"init    {len(state) - 2} tensors from {run.name}" in printed
    words = "--model", "ridge", "--on", "embeddings", "--init", file
    printed = train.other("train", "--challenge", 1, "--max-recordings", 2, *words)
    assert f"init    {len(state) - 2} tensors from cbramod.pth" in printed


def test_windows_are_embedded_by_a_file(train, caches, file, tmp_path):
    """As by the network, whose tokens are means over electrodes."""
    own_caches = shutil.copytree(caches, tmp_path / "cache")
    words = file, "--release", "R5", "--cache", own_caches
    assert "by cbramod.pth: 800 numbers each" in train.other("embed", *words)
    assert "has up-to-date embeddings" in train.other("embed", *words)
    path = cache_path(own_caches, 1, "R5")
    model = build("cbramod", depth=1).eval()
    begin(model, Published(file))
    with h5py.File(path) as f, torch.no_grad():
        x = torch.from_numpy(f["X"][:3, :, 10:210].astype(np.float32))
        seconds = model.network.encode(model.network.resample(model.normalize(x))).mean(1)
        # of two tokens in time each is that of two quarters
        wanted = seconds.repeat_interleave(2, 1).transpose(1, 2).flatten(1)
        np.testing.assert_allclose(f["embeddings"][:3, 0], wanted, atol=1e-4)
    with h5py.File(path, "r+") as f:
        names = f.attrs["channels"]
        names[[3, 4]] = names[[4, 3]]
        f.attrs["channels"] = names
    luna = written(tmp_path / "luna.safetensors", theirs("luna"))
    with pytest.raises(UserError, match="electrode 4 is E5 in .* and E4 for the model"):
        train.other("embed", luna, *words[1:])


def own(model):
    return model.network.state_dict()


def test_what_does_not_go_with_a_file_is_a_mistake(train, file, capsys):
    for words, message in (
        (("--model", "luna"), "--model luna: .*cbramod.pth has weights of cbramod"),
        (("--model", "tcn"), "--model tcn: .*cbramod.pth has weights of cbramod"),
    ):
        with pytest.raises(SystemExit):
            train.other("train", *TUNE, "--init", file, *words)
        assert message.split(": .*")[1] in capsys.readouterr().err
    for script, words in (
        ("train", (*TUNE, "--init", "nowhere.safetensors")),
        ("embed", ("nowhere.safetensors", "--release", "R1")),
    ):
        with pytest.raises(UserError, match="nowhere.safetensors cannot be read: No such file"):
            train.other(script, *words)
    with pytest.raises(UserError, match="cbramod takes no other than 'hundreds'"):
        train.other("train", *TUNE, "--init", file, "--normalize", "channel")
    assert not find_runs(train.out)
