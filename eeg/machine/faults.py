"""Which errors come from a card, its driver or a lack of memory, and not from the program."""

import torch

# What drivers and libraries write, in lower case; torch has no types for most of them.
MEMORY_WORDS = (
    *("out of memory", "outofmemory", "can't allocate memory", "not enough memory"),
    "status_alloc_failed",
)
DEVICE_WORDS = (
    *("cuda error", "cudnn error", "cudnn_status", "cublas", "cusolver"),
    *("device-side assert", "accelerator error", "driver shutting down"),
    *("hip error", "miopen", "hipblas", "rocblas", "rocsolver", "hsa_status"),
    *("mps backend", "metal"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a card or on the machine."""
    if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and says_out_of_memory(str(error))


def says_out_of_memory(text: str) -> bool:
    """Whether a driver's or library's words say that memory ran out."""
    return any(words in text.lower() for words in MEMORY_WORDS)


def is_device_error(error: BaseException) -> bool:
    """Whether an exception comes from a card or its driver, out of memory aside."""
    if is_out_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    kind = getattr(torch, "AcceleratorError", ())  # torch 2.8
    text = str(error).lower()
    return isinstance(error, kind) or any(words in text for words in DEVICE_WORDS)
