/* fft.h - the discrete Fourier transform of any length, in double. */
#ifndef MO_FFT_H
#define MO_FFT_H

#include <stdbool.h>
#include <stdint.h>

/* Tables for one length. */
struct mo_fft;

struct mo_fft *mo_fft_new(int64_t n);           /* NULL: no memory */
void mo_fft_free(struct mo_fft *f);
/* x[k] = sum over j of x[j] e^(-2 pi i j k / n), the exponent's sign turned when inverse; x: n pairs. Nothing is
 * divided by. */
void mo_fft_run(struct mo_fft *f, bool inverse, double *x);

#endif
