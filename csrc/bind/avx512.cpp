// The extension for processors with AVX-512, see levels.hpp.
#define EEG_MODULE _native_avx512
#include "bind.cpp"
