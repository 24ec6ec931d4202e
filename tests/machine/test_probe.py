"""The child process that checks a device: stand-ins that crash, hang and lie, and the real one on
the CPU."""

import os
import time

import pytest
import torch

from eeg.machine import check, probe


def states(attempt):
    return [check.state for check in attempt.checks]


def test_a_good_device_is_trusted_with_mixed_precision(child):
    seen = []
    attempt = probe.inspect(
        "cuda:0", on_check=lambda attempt, check: seen.append(check.name), program=child[0]
    )
    assert states(attempt) == ["ok"] * 10 and tuple(seen) == probe.CHECKS
    assert attempt.trusted and attempt.failure is None and attempt.precisions() == ("fp32", "fp16")
    assert attempt.card["name"] == "Navi 10"


@pytest.mark.parametrize(
    "fault, failed, text",
    [
        ("convolution:segfault", "convolution", "the child died of SIGSEGV"),
        (
            "convolution:abort",
            "convolution",
            "the child died of SIGABRT: Memory access fault by GPU node-1 on address 0x7f",
        ),
        ("batch norm:hang", "batch norm", "no answer within 1 s"),
        ("matmul:wrong", "matmul", "forward: 3.1e-01 away"),
        ("memory:nonsense", "memory", "the child's answer cannot be read: Memory: 12 GB"),
        ("detect:quiet", "detect", "the child ended with exit code 0"),
        ("end:segfault", "small steps", "afterwards, the child died of SIGSEGV"),
        ("end:hang", "small steps", "afterwards, no answer within 1 s"),
    ],
)
def test_a_fault_costs_the_child_and_names_the_check(child, monkeypatch, fault, failed, text):
    monkeypatch.setenv("FAULT", fault)
    seen = []
    attempt = probe.inspect(
        "cuda:0", on_check=lambda attempt, check: seen.append(check), program=child[0], limit_s=1
    )
    at = probe.CHECKS.index(failed)
    assert states(attempt) == ["ok"] * at + ["failed"] + ["not run"] * (9 - at)
    assert attempt.failure.name == failed and attempt.failure.text == text
    assert not attempt.trusted and attempt.precisions()[0] == "fp32"
    assert len(child[1]()) == 1
    assert seen[-1] == attempt.checks[-1]


def test_a_child_that_hangs_is_ended(child, monkeypatch):
    monkeypatch.setenv("FAULT", "detect:hang")
    monkeypatch.setattr(
        probe, "kill", lambda child, kill=probe.kill: (kill(child), gone.append(child))[0]
    )
    gone = []
    start = time.monotonic()
    probe.inspect("cuda:0", program=child[0], limit_s=0.5)
    assert time.monotonic() - start < 10 and gone[0].returncode == -9


@pytest.mark.parametrize("what", ["segfault", "wrong", "hang"])
def test_without_mixed_precision_a_card_is_still_of_use(child, monkeypatch, what):
    monkeypatch.setenv("FAULT", f"amp:{what}")
    attempt = probe.inspect("cuda:0", program=child[0], limit_s=1)
    assert states(attempt) == ["ok"] * 6 + ["failed"] + ["ok"] * 3
    assert attempt.trusted and attempt.precisions() == ("fp32",)
    assert [names for _, names, _ in child[1]()] == [list(probe.CHECKS), list(probe.CHECKS[7:])]


def test_the_surroundings_of_a_child(child, monkeypatch, tmp_path):
    monkeypatch.setenv("HSA_OVERRIDE_GFX_VERSION", "9.0.0")
    probe.inspect("cuda:0", {"HSA_OVERRIDE_GFX_VERSION": None}, program=child[0])
    probe.inspect("cuda:0", {"HSA_OVERRIDE_GFX_VERSION": "10.1.0"}, program=child[0])
    probe.inspect("cuda:0", program=child[0])
    assert [override for *_, override in child[1]()] == [None, "10.1.0", "9.0.0"]
    assert os.environ["HSA_OVERRIDE_GFX_VERSION"] == "9.0.0"
    assert probe.Attempt("cuda:0", {"A": None, "B": "1"}).setting == "without A, B=1"


# RDNA1 cards under ROCm


@pytest.fixture
def rocm(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.version, "hip", "6.2.41133")
    return tmp_path / "root"


@pytest.mark.parametrize(
    "works_with, tried",
    [
        ("no override", [None]),
        ("10.1.0", [None, "10.1.0"]),
        ("10.3.0", [None, "10.1.0", "10.3.0"]),
        ("never", [None, "10.1.0", "10.3.0"]),
    ],
)
def test_overrides_are_tried_in_order_until_one_works(child, monkeypatch, rocm, works_with, tried):
    monkeypatch.setenv("FAULT", "convolution:segfault")
    monkeypatch.setenv("WORKS_WITH", works_with)
    attempts = probe.attempt_all("", rocm, None, child[0], 5)
    assert [override for *_, override in child[1]()] == tried
    assert [attempt.trusted for attempt in attempts] == [False] * (len(tried) - 1) + [
        works_with != "never"
    ]


def test_an_override_of_the_users_comes_first_and_once(child, monkeypatch, rocm):
    monkeypatch.setenv("HSA_OVERRIDE_GFX_VERSION", "10.1.0")
    monkeypatch.setenv("FAULT", "convolution:segfault")
    probe.attempt_all("cuda:0", rocm, None, child[0], 5)
    assert [override for *_, override in child[1]()] == ["10.1.0", None, "10.3.0"]


def test_other_cards_get_no_override(child, monkeypatch, rocm):
    monkeypatch.setenv("FAULT", "convolution:segfault")
    monkeypatch.setenv("KIND", "gfx1100")
    probe.attempt_all("", rocm, None, child[0], 5)
    assert len(child[1]()) == 1


def test_a_card_that_dies_before_it_says_what_it_is_is_known_by_the_kernel(
    child, monkeypatch, rocm
):
    node = rocm / "sys/class/kfd/kfd/topology/nodes/1"
    node.mkdir(parents=True)
    (node / "properties").write_text("cpu_cores_count 0\ngfx_target_version 100100\n")
    monkeypatch.setenv("FAULT", "detect:segfault")
    probe.attempt_all("", rocm, None, child[0], 5)
    assert [override for *_, override in child[1]()] == [None, "10.1.0", "10.3.0"]


def test_a_second_card_is_tried_where_the_first_fails(child, monkeypatch, rocm):
    monkeypatch.setenv("KIND", "gfx1100")
    monkeypatch.setenv("COUNT", "2")
    monkeypatch.setenv("FAULT", "matmul:wrong")
    attempts = probe.attempt_all("", rocm, None, child[0], 5)
    assert [attempt.device for attempt in attempts] == ["cuda:0", "cuda:1"]


# The checks themselves


def test_a_device_that_is_not_there_is_said_so_by_a_real_child():
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    attempt = probe.inspect("cuda:0")
    assert attempt.failure.name == "detect" and not attempt.trusted


def twist(monkeypatch, name, change):
    """Let a function of torch's return something else, as a bad card would: in the first float32
    call, the CPU's reference being float64."""
    real = getattr(torch.nn.functional, name)

    def bad(x, *arguments, **settings):
        y = real(x, *arguments, **settings)
        return y + change * y.detach().abs().mean() if y.dtype == torch.float32 else y

    monkeypatch.setattr(torch.nn.functional, name, bad)


def test_wrong_numbers_are_seen(monkeypatch):
    cpu = torch.device("cpu")
    twist(monkeypatch, "batch_norm", 0.01)
    with pytest.raises(check.Wrong, match="training, forward: .* away from the CPU's numbers"):
        check.batch_norm(cpu)
    real = torch.Tensor.__matmul__
    monkeypatch.setattr(
        torch.Tensor,
        "__matmul__",
        lambda a, b: real(a, b) * (1.001 if a.dtype == torch.float32 else 1),
    )
    with pytest.raises(check.Wrong, match="512 x 512"):
        check.matmul(cpu)


def test_a_backward_pass_that_is_wrong_is_seen(monkeypatch):
    real = torch.Tensor.backward

    def backward(self, gradient=None, **settings):
        real(
            self,
            gradient * 1.02
            if gradient is not None and gradient.dtype == torch.float32
            else gradient,
            **settings,
        )

    monkeypatch.setattr(torch.Tensor, "backward", backward)
    with pytest.raises(check.Wrong, match="across electrodes, backward to the input"):
        check.convolution(torch.device("cpu"))


def test_nan_is_not_agreement():
    with pytest.raises(check.Wrong, match="NaN"):
        check.agree("it", torch.tensor([1.0, float("nan")]), torch.ones(2).double(), 1.0)
    with pytest.raises(check.Wrong, match="should fall"):
        check.falls("steps", [1.0, float("nan")])
