"""Every binding is among those that the fuzzer calls, and survives some calls of each."""

from collections import Counter

from tests.csrc import fuzz


def test_every_binding_is_fuzzed():
    missing = sorted(set(fuzz.bindings()) ^ set(fuzz.GOOD))
    assert not missing, f"tests/csrc/fuzz.py needs a good call of each of these, or none: {missing}"


def test_some_calls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = fuzz.run(600)
    returned = Counter(name for name, how in outcome if how == "returned")
    assert set(returned) == set(fuzz.GOOD)  # or the spoilt calls begin with one that is not good
