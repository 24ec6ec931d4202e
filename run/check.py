"""Check whether this machine can train: ten checks of each device in a child process.

    python run/check.py                    the card that training would use, if any, and the CPU
    python run/check.py --again            ignores the verdict stored in cache/device.json
    python run/check.py --device cuda:1    only this device: cpu, cuda, cuda:1, rocm or mps
    python run/check.py --json             for programs

An RDNA1 card under ROCm is tried as it is, then with HSA_OVERRIDE_GFX_VERSION 10.1.0, then 10.3.0;
training sets the value that passed. The exit code is 0 if any device can train.
"""

import json

from eeg import cli


def arguments():
    p = cli.parser(__doc__)
    cli.add_device(p)
    p.add_argument(
        "--again", action="store_true", help="repeat the checks, ignoring stored verdicts"
    )
    p.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")
    return p.parse_args()


def main():
    args = arguments()
    from dataclasses import asdict

    import torch

    from eeg.machine import cards, device, memory, probe

    say = (lambda *_, **__: None) if args.json else print
    table = Table(say)
    wanted = device.parse(args.device)
    limit = memory.limit_bytes()
    threads = cli.counted(device.cpu_threads(), "thread")
    room = f", {limit / 1e9:.1f} GB of memory" if limit else ""
    say(f"machine   {device.processor()}, {threads}{room}; {cards.driver()}")
    platforms = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
    built = [f", {name} {version}" for name, version in platforms.items() if version]
    say(f"torch     {torch.__version__}{''.join(built)}")
    if wanted != "cpu" and (reason := cards.absent(wanted)):
        say(f"no GPU    {reason}")
    choice = device.choose(args.device, args.cache, args.again, table)
    attempts = list(choice.attempts)
    if wanted in ("", "cpu"):
        attempts.append(probe.inspect("cpu", on_check=table))
    trusted = any(attempt.trusted for attempt in attempts)
    if args.json:
        found = [asdict(attempt) | {"trusted": attempt.trusted} for attempt in attempts]
        print(json.dumps(asdict(choice) | {"attempts": found, "trusted": trusted}, indent=1))
    elif choice.device == "cpu" and not attempts[-1].trusted:
        say("\nno device of this machine can train: the CPU fails too")
    else:
        why = f": {choice.reason}" if choice.attempts else ""
        precisions = " or ".join(choice.precisions)
        say(f"\ntraining uses {choice.device}, {choice.name}, in {precisions}{why}")
    return int(not trusted)


class Table:
    """Prints a check as it ends; a heading where another attempt begins."""

    def __init__(self, say):
        self.say, self.attempt = say, None

    def __call__(self, attempt, check):
        if attempt is not self.attempt:
            self.attempt = attempt
            self.say("\n" + ", ".join(filter(None, (attempt.device, attempt.setting))))
        seconds = f"{check.seconds:6.1f} s" if check.state in ("ok", "failed") else " " * 8
        self.say(f"  {check.name:<13}{check.state:<8}{seconds}   {check.text}", flush=True)


if __name__ == "__main__":
    cli.run(main)
