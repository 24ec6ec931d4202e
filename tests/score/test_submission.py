"""submission.zip: its content, its answers in a fresh interpreter, and what is refused."""

import ast
import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import eeg.models
from eeg import UserError
from eeg.data.build import Settings, build
from eeg.data.features import compute
from eeg.data.release import find_release
from eeg.machine.load import Load
from eeg.runs.run import Run
from eeg.score import server
from eeg.score.submission import Entry, check, entry, example_windows, write_zip
from tests.conftest import trial_events, write_participants, write_recording
from tests.score.conftest import save_run

ROOT = Path(__file__).resolve().parents[2]

# answers windows of every batch size, in volts and microvolts, from a folder that is not its own
LOAD = """
import sys
import numpy as np, torch
sys.modules["eeg"] = sys.modules["braindecode"] = None
sys.path.insert(0, sys.argv[1])
from submission import Submission
x = torch.from_numpy(np.load("x.npy"))
found = {}
for challenge, get in (1, "get_model_challenge_1"), (2, "get_model_challenge_2"):
    model = getattr(Submission(100, torch.device("cpu")), get)()
    assert isinstance(model, torch.nn.Module) and not model.training
    model.eval()
    with torch.inference_mode():
        cases = ("volts", x, (1, 3, 5)), ("microvolts", x * 1e6, (5,)), ("double", x.double(), (4,))
        for name, windows, sizes in cases:
            for size in sizes:
                parts = [model.forward(part) for part in windows.split(size)]
                assert all(part.shape[1:] == (1,) and part.dtype == torch.float32 for part in parts)
                found[f"{challenge} {name} {size}"] = torch.cat(parts).numpy()
        assert model(x[:0]).shape == (0, 1)
np.savez("found.npz", **found)
absent = "scipy", "h5py", "mne", "eeg"
print(sorted(name for name in sys.modules if sys.modules[name] and name.split(".")[0] in absent))
"""


def write_run(
    out, where, challenge=1, seed=0, target=None, nrmse=0.9, mean=1.02, simulated=False, **settings
):
    """A finished run as the trainer leaves it, its weights drawn by chance. -> Run"""
    torch.manual_seed(seed)
    model = eeg.models.build(**settings)
    for buffer, value in ((model.center, 1.6), (model.scale, 0.4), (model.shrink, 0.7)):
        buffer.fill_(value)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3), module.running_var.uniform_(0.5, 2)
    config = {
        "challenge": challenge,
        "target": target or {1: "rt_from_stimulus", 2: "externalizing"}[challenge],
        "name": (out / where).parent.name,
        "model": model.settings,
        "train": {"seed": seed},
        "simulated": simulated,
    }
    epochs = [{"epoch": 1, "valid": {"nrmse": nrmse, "mean_predictor": mean}}]
    return save_run(out / where, model, config, epochs)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """experiments/ with three runs of challenge 1 and one of challenge 2."""
    out = tmp_path_factory.mktemp("submission") / "experiments"
    write_run(out, "c1_tcn/20260101_000000", seed=1, nrmse=0.8, name="tcn", width=16, depth=2)
    write_run(out, "c1_eegnex/20260101_000000", seed=2, name="eegnex")
    write_run(out, "c1_hybrid/20260101_000000", seed=3, name="hybrid", features="layer")
    write_run(
        out,
        "c2_conformer/20260101_000000",
        challenge=2,
        seed=4,
        target="factors",
        name="conformer",
        n_outputs=4,
    )
    return out


@pytest.fixture
def submit(monkeypatch, capsys, tmp_path):
    """submit(*arguments) calls run/submit.py in an empty folder. -> what it prints"""
    spec = importlib.util.spec_from_file_location("submit", ROOT / "run" / "submit.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["submit.py", *map(str, arguments)])
        script.main()
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize("busy", [0.0, 1.3])
def test_a_time_told_under_load_says_so(runs, submit, monkeypatch, busy):
    monkeypatch.setattr(Load, "cores", lambda self: busy)
    monkeypatch.setattr("eeg.machine.device.cpu_cores", lambda: 2)
    line = "measured while other programs kept 1.3 of 2 cores busy: an idle machine takes less time"
    assert (line in submit("c1_tcn", "c2_conformer", "--out", runs)) == (busy > 0)


def test_it_answers_alone_as_the_runs_do(runs, submit, tmp_path):
    said = submit("c1_tcn", "c1_eegnex", "c2_conformer", "c1_hybrid", "--out", runs)
    assert "the average of these 3" in said
    assert "c2_conformer/20260101_000000" in said
    assert "batches of 1 and 64" in said
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "unpacked")
    assert names == {
        f"{name}.py"
        for name in (
            "submission",
            "models",
            "model",
            "features",
            "layers",
            "montage",
            "neuro",
            "tcn",
            "eegnex",
            "exchange",
            "cnn",
            "ridge",
            "transformer",
        )
    } | {"weights_challenge_1.pt", "weights_challenge_2.pt"}

    rng = np.random.default_rng(5)
    x = (1e-5 * rng.standard_normal((5, 129, 200))).astype(np.float32)
    x[:, 128] = 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    np.save(elsewhere / "x.npy", x)
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOAD, tmp_path / "unpacked"],
        cwd=elsewhere,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stdout == "[]\n", done.stderr

    expected = {1: [], 2: []}
    for folder in sorted(runs.glob("*/*")):
        saved = torch.load(next(folder.glob("weights*")), weights_only=True)
        model = eeg.models.build(**saved["settings"]).eval()
        model.load_state_dict(saved["state"])
        with torch.inference_mode():
            expected[int(folder.parent.name[1])].append(model(torch.from_numpy(x))[:, :1].numpy())
    with np.load(elsewhere / "found.npz") as found:
        assert len(found) == 2 * 5
        for name, answers in found.items():
            mean = np.mean(expected[int(name[0])], 0)
            assert answers.shape == (5, 1) and np.ptp(mean) > 1e-3
            np.testing.assert_allclose(answers, mean, atol=3e-5, err_msg=name)


def test_published_encoders_leave_their_folder(tmp_path):
    """A network itself, and one inside a ridge: the zip is flat, and answers alone as they do."""
    torch.manual_seed(0)
    encoder = {"name": "luna", "normalize": "channel", "size": "base"}
    ridge = eeg.models.build("ridge", on="embeddings", encoder=encoder).eval()
    torch.nn.init.normal_(ridge.network.weight, std=0.1)
    cbramod = eeg.models.build("cbramod", depth=1).eval()
    entries = {1: Entry({"ridge": ridge}), 2: Entry({"cbramod": cbramod})}
    write_zip(tmp_path / "a.zip", entries)
    found = check(tmp_path / "a.zip", entries)
    assert max(found.differences.values()) < 1e-4
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = set(archive.namelist())
    assert {"luna.py", "cbramod.py", "attention.py", "patches.py"} < names


def test_a_hybrid_with_stored_features_answers_alone_as_with_them(submit, tmp_path):
    """In volts without features it answers as with those that run/features.py would store."""
    run = write_run(tmp_path / "experiments", "c1_hybrid/1", name="hybrid", features="file")
    saved = torch.load(run.weights, weights_only=True)
    rng = np.random.default_rng(0)
    saved["state"]["median"], saved["state"]["mad"] = (
        torch.from_numpy(rng.normal(size=103)).float(),
        torch.from_numpy(rng.uniform(1, 30, 103)).float(),
    )
    torch.save(saved, run.weights)
    write_run(tmp_path / "experiments", "c2_tcn/1", challenge=2, **TINY)
    submit()
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    packed = torch.load(tmp_path / "unpacked" / "weights_challenge_1.pt", weights_only=True)[
        "members"
    ][0]
    alone, own = (eeg.models.build(**each["settings"]).eval() for each in (packed, saved))
    alone.load_state_dict(packed["state"])
    own.load_state_dict(saved["state"])
    x = example_windows()[:20]
    features = compute(np.ascontiguousarray(1e6 * x, np.float32))
    with torch.inference_mode():
        expected = own(torch.from_numpy(x), torch.from_numpy(features))
        without = own(torch.from_numpy(x), torch.full((20, 103), torch.nan))
        np.testing.assert_allclose(alone(torch.from_numpy(x)), expected, atol=1e-4)
    assert (expected - without).abs().max() > 1e-2  # it listens to them


TINY = {"name": "tcn", "width": 8, "depth": 1, "head": "number"}


@pytest.mark.parametrize(
    "about, reason",
    [
        ({"simulated": True}, "c2_tcn/1 was trained on simulated data"),
        (
            {"nrmse": 1.021},
            "c2_tcn/1 does not beat the mean of its training labels on its validation subjects "
            r"\(NRMSE 1.02100, the mean 1.02000\)",
        ),
        (
            {"nrmse": 1.02},
            "c2_tcn/1 does not beat the mean",
        ),  # a model whose answers were shrunk to it
        (
            {"nrmse": 1.0, "mean": None},
            r"does not beat .* the mean 1.00000\)",
        ),  # no constant scores less
    ],
)
def test_a_model_that_is_worth_nothing_needs_anyway(submit, tmp_path, about, reason):
    out = tmp_path / "experiments"
    write_run(out, "c1_tcn/1", **TINY)
    write_run(out, "c2_tcn/1", challenge=2, **about, **TINY)
    with pytest.raises(UserError, match=reason) as raised:
        submit()
    assert "submission.zip is not written" in str(raised.value)
    assert str(raised.value).endswith("add --anyway")
    assert "c1_tcn/1" not in str(raised.value) and not list(tmp_path.glob("*.zip*"))
    said = submit("--anyway")
    assert re.search(f"warning: .*{reason}", said) and (tmp_path / "submission.zip").exists()


def test_what_beats_the_mean_is_submitted_and_compared(submit, tmp_path):
    out = tmp_path / "experiments"
    write_run(out, "c1_tcn/1", nrmse=0.9, **TINY)
    write_run(out, "c2_tcn/1", challenge=2, nrmse=1.0199, **TINY)
    said = submit()
    assert "validation NRMSE 0.90000, the mean of its training labels 1.02000" in said
    assert "validation NRMSE 1.01990, the mean of its training labels 1.02000" in said
    assert "warning" not in said
    assert (tmp_path / "submission.zip").exists()


def test_a_constant_of_simulated_labels_needs_anyway(submit, tmp_path):
    write_run(tmp_path / "experiments", "c1_tcn/1", **TINY)
    places = ["--data", tmp_path / "data", "--cache", tmp_path / "cache"]
    for script in ("synth", "cache"):
        words = (
            ["--subjects", "2"]
            if script == "synth"
            else ["--challenge", "2", "--max-recordings", "6"]
        )
        subprocess.run(
            [sys.executable, ROOT / "run" / f"{script}.py", "--release", "R1", *words, *places],
            check=True,
            capture_output=True,
        )
    with pytest.raises(
        UserError, match="the constant of challenge 2 is the mean of simulated labels"
    ):
        submit("--constant", 2)
    assert "warning: the constant of challenge 2" in submit("--constant", 2, "--anyway")


def test_runs_of_a_name_are_chosen_by_seed(submit, tmp_path):
    out = tmp_path / "experiments"
    for seed in range(3):
        write_run(out, f"c1_tcn/2026010{seed}_000000", seed=seed, name="tcn", width=8, depth=1)
    write_run(
        out, "c2_tcn/20260101_000000", challenge=2, name="tcn", width=8, depth=1, head="number"
    )
    said = submit("c1_tcn", "--seed", 0, 1)
    assert "c1_tcn/20260100_000000" in said
    assert "c1_tcn/20260101_000000" in said
    assert "the average of these 2" in said
    assert "c1_tcn/20260102" not in said
    assert "the average of these 2" in submit("c1_tcn/20260101..")


def test_all_that_is_packed_imports_torch_alone():
    standard = sys.stdlib_module_names | {"torch", "numpy"}
    for path in [Path(server.__file__), *Path(eeg.models.__file__).parent.rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
            for name in names:
                # the extension, which it does without where there is none
                native = path.name == "layers.py" and name == "eeg"
                assert name.split(".")[0] in standard or native, f"{path.name} imports {name}"


def test_files_are_found_where_the_server_puts_them(runs, tmp_path, monkeypatch):
    write_zip(
        tmp_path / "a.zip",
        {challenge: entry([Run(next(runs.glob(f"c{challenge}_*/*")))]) for challenge in (1, 2)},
    )
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        archive.extractall(tmp_path / "input" / "res")
    monkeypatch.delitem(sys.modules, "submitted_models", raising=False)
    monkeypatch.setattr(server, "PLACES", [tmp_path / "nothing", tmp_path / "input" / "res"])
    assert server.Submission(100.0, "cpu").get_model_challenge_1()(
        torch.zeros(2, 129, 200)
    ).shape == (2, 1)
    monkeypatch.setattr(server, "PLACES", [tmp_path / "nothing"])
    with pytest.raises(FileNotFoundError, match="weights_challenge_2.pt is in none of .*nothing"):
        server.Submission(100, "cpu").get_model_challenge_2()
    with pytest.raises(ValueError, match="SFREQ is 250"):
        server.Submission(250, "cpu")


def test_a_constant_stands_in_only_if_asked_for(runs, submit, tmp_path):
    write_run(tmp_path / "experiments", "c1_tcn/20260101_000000", name="tcn", width=8, depth=1)
    with pytest.raises(UserError, match="none for challenge 2.*--constant 2"):
        submit()
    with pytest.raises(UserError, match="run/cache.py"):  # there are no labels to take the mean of
        submit("--constant", 2)
    folder = tmp_path / "data" / "R1_L100_bdf"
    for i, factor in enumerate(("0.5", "-1.25", "2")):  # a release of noise, of 3 subjects
        write_recording(folder, f"NDARAA00{i}AAA", trial_events(2), seconds=20 + 10 * i, seed=i)
    write_participants(folder, [f"NDARAA00{i}AAA" for i in range(3)])
    rows = (folder / "participants.tsv").read_text().splitlines()
    (folder / "participants.tsv").write_text(
        "\n".join(
            [
                rows[0],
                *(
                    row.rpartition("\t")[0] + f"\t{factor}"
                    for row, factor in zip(rows[1:], ("0.5", "-1.25", "2"))
                ),
            ]
        )
        + "\n"
    )
    build(find_release("R1", tmp_path / "data"), Settings(2), tmp_path / "cache")
    said = submit("--constant", 2)
    # of 20, 30 and 40 s; one subject, of those with most windows, is on the validation side
    windows = np.array([9, 14, 19])
    means = [
        f"{np.delete(windows, i) @ np.delete([0.5, -1.25, 2], i) / np.delete(windows, i).sum():.4f}"
        for i in range(3)
    ]
    assert any(f"every window is answered {mean}, the mean of" in said for mean in means), (
        said,
        means,
    )
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        archive.extract("weights_challenge_2.pt", tmp_path)
    assert (
        f"{torch.load(tmp_path / 'weights_challenge_2.pt', weights_only=True)['constant']:.4f}"
        in said
    )
    with pytest.raises(UserError, match="name one of them"):
        submit(next(runs.glob("c2*/*")), "--constant", 2)


def test_what_cannot_be_submitted_is_refused(submit, tmp_path):
    with pytest.raises(UserError, match="nothing to submit.*run/train.py"):
        submit()
    for words in (["--zip", "submission.tar"], ["--check", "a.zip", "c1_tcn"]):
        with pytest.raises(SystemExit) as end:
            submit(*words)
        assert end.value.code == 2
    with pytest.raises(
        UserError,
        match="features of stored windows of 4 s.*--challenge 2 --model hybrid .*--features layer",
    ):
        entry([write_run(tmp_path, "a/1", challenge=2, name="hybrid", features="file")])
    with pytest.raises(
        UserError, match="takes windows of 64 channels x 200 samples; the server gives 129 x 200"
    ):
        entry([write_run(tmp_path, "b/1", name="tcn", n_chans=64)])
    with pytest.raises(UserError, match="trained for correct"):
        entry([write_run(tmp_path, "c/1", target="correct", name="tcn", head="number")])
    run = write_run(tmp_path, "d/1", name="tcn", width=8)
    saved = torch.load(run.weights, weights_only=True)
    torch.save(saved | {"settings": saved["settings"] | {"width": 9}}, run.weights)
    with pytest.raises(UserError, match="do not fit"):
        entry([run])


IN_ORDER = """
import sys
import numpy as np, torch
sys.path.insert(0, sys.argv[1])
from submission import Submission
submission = Submission(100, torch.device("cpu"))
x, at, found = torch.from_numpy(np.load("x.npy")), 0, []
model = submission.get_model_challenge_2().eval()
with torch.inference_mode():
    for size in map(int, sys.argv[2:]):
        found.append(model.forward(x[at : at + size]))
        assert found[-1].shape == (size, 1) and found[-1].dtype == torch.float32
        at += size
    again = submission.get_model_challenge_2()(x[:1])
    first = submission.get_model_challenge_1()(x[:9])
np.savez("found.npz", answers=torch.cat(found).numpy(), again=again.numpy(), first=first.numpy())
"""


@pytest.mark.parametrize("sizes", [[1] * 23, [4, 0, 7, 12], [23]])
def test_smoothing_in_the_servers_order_is_a_running_mean(submit, tmp_path, sizes):
    out, count = tmp_path / "experiments", 5
    first = write_run(out, "c1_tcn/1", name="tcn", width=8, depth=1, head="number")
    runs = [write_run(out, f"c2_tcn/{n}", challenge=2, seed=n, **TINY) for n in (1, 2)]
    said = submit("c1_tcn", "c2_tcn/1", "c2_tcn/2", "--smooth-in-order", count)
    assert said.count("the mean over 5 windows, as the server orders them") == 1
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    x = example_windows()[:23]
    np.save(tmp_path / "x.npy", x)
    plain = {}
    for run in (first, *runs):
        with torch.inference_mode():
            plain[run.name] = entry([run])(torch.from_numpy(x)).numpy()[:, 0].astype(float)
    means = (plain["c2_tcn/1"] + plain["c2_tcn/2"]) / 2
    expected = [
        (means[0]),
        (means[0] + means[1]) / 2,
        (means[0] + means[1] + means[2]) / 3,
        (means[0] + means[1] + means[2] + means[3]) / 4,
        *np.convolve(means, np.ones(count) / count, "valid"),
    ]
    assert np.abs(expected - means).max() > 1e-3
    for _ in range(2):  # a second process begins afresh
        command = [sys.executable, "-I", "-c", IN_ORDER, tmp_path / "unpacked", *map(str, sizes)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with np.load(tmp_path / "found.npz") as found:
            np.testing.assert_allclose(found["answers"][:, 0], expected, atol=1e-5)
            np.testing.assert_allclose(found["again"][:, 0], means[:1], atol=1e-5)
            np.testing.assert_allclose(found["first"][:, 0], plain["c1_tcn/1"][:9], atol=1e-5)


def test_smoothing_is_off_unless_it_is_asked_for(submit, tmp_path):
    write_run(tmp_path / "experiments", "c1_tcn/1", **TINY)
    write_run(tmp_path / "experiments", "c2_tcn/1", challenge=2, **TINY)
    assert "the mean over" not in submit()
    with zipfile.ZipFile(tmp_path / "submission.zip") as archive:
        archive.extractall(tmp_path / "unpacked")
    weights = torch.load(tmp_path / "unpacked" / "weights_challenge_2.pt", weights_only=True)
    assert weights["smooth_in_order"] == 1
    for words in (["--check", "submission.zip"], ["--constant", 2], ["0"]):
        with pytest.raises(SystemExit) as end:
            submit("--smooth-in-order", *(words if words == ["0"] else [9, *words]))
        assert end.value.code == 2


def zipped(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_a_zip_that_the_server_would_refuse(tmp_path):
    good = {"submission.py": "", "weights_challenge_1.pt": b"", "weights_challenge_2.pt": b""}
    with pytest.raises(UserError, match="nested .my/submission.py"):
        check(zipped(tmp_path / "a.zip", {f"my/{name}": content for name, content in good.items()}))
    with pytest.raises(UserError, match="lacks weights_challenge_2.pt"):
        check(
            zipped(
                tmp_path / "b.zip",
                {name: content for name, content in good.items() if "_2" not in name},
            )
        )
    with pytest.raises(UserError, match="fresh interpreter, fails: .*Submission"):
        check(zipped(tmp_path / "c.zip", good))
    (tmp_path / "d.zip").write_bytes(b"PK not a zip")
    with pytest.raises(UserError, match="not a zip"):
        check(tmp_path / "d.zip")
    with pytest.raises(UserError, match="there is no .*e.zip"):
        check(tmp_path / "e.zip")


def test_a_zip_that_answers_otherwise_is_not_done(runs, tmp_path):
    entries = {1: Entry({}, 1.6), 2: Entry({}, 0.1)}
    write_zip(tmp_path / "a.zip", entries)
    assert check(tmp_path / "a.zip", entries).differences == {1: 0.0, 2: 0.0}
    with pytest.raises(UserError, match="answers differently from c2_conformer"):
        check(tmp_path / "a.zip", entries | {2: entry([Run(next(runs.glob("c2*/*")))])})
    with pytest.raises(UserError, match="numbers that are not finite"):
        write_zip(tmp_path / "b.zip", entries | {1: Entry({}, float("nan"))})
        check(tmp_path / "b.zip")


def test_a_failed_check_leaves_no_zip(submit, tmp_path):
    out = tmp_path / "experiments"
    run = write_run(out, "c1_tcn/20260101_000000", name="tcn", width=8, depth=1)
    saved = torch.load(run.weights, weights_only=True)
    saved["state"]["center"].fill_(float("nan"))
    torch.save(saved, run.weights)
    write_run(
        out, "c2_tcn/20260101_000000", challenge=2, name="tcn", width=8, depth=1, head="number"
    )
    with pytest.raises(UserError, match="not finite"):
        submit()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["experiments"]


def test_example_windows_are_in_volts():
    x = example_windows()
    assert x.shape == (65, 129, 200) and 1e-6 < np.median(x.std(2)) < 1e-4 and not x[:, 128].any()
