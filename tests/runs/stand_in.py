"""A stand-in for run/train.py: the same options and files, no training.

A score is (lr - 0.5)^2 + 1/epochs. It notes in <out>/calls.txt when it begins and ends.
--set fail=1 makes it fail, --set sleep=0.3 sets its seconds; --unknown is refused.
"""

import argparse
import json
import os
import socket
import sys
import time
from datetime import datetime
from pathlib import Path

p = argparse.ArgumentParser()
p.add_argument("--challenge", type=int)
p.add_argument("--resume", type=Path)
p.add_argument("--name")
p.add_argument("--epochs", type=int)
p.add_argument("--seed", type=int)
p.add_argument("--lr", type=float, default=0.0)
p.add_argument("--batch-size", type=int)
p.add_argument("--balance", action="store_true")
p.add_argument("--set", nargs="+", default=[])
for option in ("--out", "--cache", "--data"):
    p.add_argument(option, type=Path)
args = p.parse_args()


def note(what):
    with open(args.out / "calls.txt", "a") as f:
        f.write(f"{what} {folder.parent.name} {args.epochs} {os.getpid()}\n")


folder = args.resume or args.out / args.name / datetime.now().strftime("%Y%m%d_%H%M%S")
if args.resume:
    config = json.loads((folder / "config.json").read_text())
    config["train"]["epochs"] = args.epochs
else:
    folder.mkdir(parents=True)
    settings = dict(pair.split("=") for pair in args.set)
    train = {"epochs": args.epochs, "lr": args.lr, "set": settings}
    config = {"challenge": args.challenge, "target": "rt_from_stimulus", "train": train}
(folder / "config.json").write_text(json.dumps(config))
state = lambda **said: (folder / "state.json").write_text(
    json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "updated": time.time()} | said)
)
state(status="running")
note("begin")
time.sleep(float(config["train"]["set"].get("sleep", 0)))
if "fail" in config["train"]["set"]:
    state(status="failed", reason="the loss is not finite")
    print("error: the loss is not finite", file=sys.stderr)
    sys.exit(1)
(folder / f"weights_challenge_{config['challenge']}.pt").write_bytes(b"")
state(status="finished", best_nrmse=(config["train"]["lr"] - 0.5) ** 2 + 1 / args.epochs)
note("end")
