"""Pretrained encoders: the options of pretraining, and models that begin with an encoder."""
