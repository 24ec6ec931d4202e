"""What a pretrained encoder is worth with few labelled subjects: a row of run/bench.py."""
