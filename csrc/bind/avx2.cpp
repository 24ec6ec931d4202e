// The extension for processors with AVX2, see levels.hpp.
#define EEG_MODULE _native_avx2
#include "bind.cpp"
