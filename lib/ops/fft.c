/* fft.c - lengths that are powers of two by halving (Cooley and Tukey 1965); others as a convolution with a chirp, whose
 * length is one (Bluestein 1970): with w[k] = e^(-i pi k^2 / n), X[k] = w[k] sum over j of (x[j] w[j]) conj(w[k - j]). */
#include "lib/ops/fft.h"

#include <math.h>
#include <string.h>

#include "lib/base/base.h"

struct mo_fft {
    int64_t n, m;               /* m: the power of two that is transformed */
    double *twiddle;            /* m / 2 pairs e^(-2 pi i k / m) */
    double *chirp, *filter;     /* n and m pairs, where n is no power of two: w, and the transform of conj(w) */
    double *work;               /* m pairs */
};

static void multiply(double *a, const double *b)
{
    double re = a[0] * b[0] - a[1] * b[1];
    a[1] = a[0] * b[1] + a[1] * b[0];
    a[0] = re;
}

/* Into the order of the bits read backwards. */
static void reorder(int64_t m, double *x)
{
    for (int64_t i = 1, j = 0; i < m; i++) {
        int64_t bit = m >> 1;
        for (; j & bit; bit >>= 1)
            j ^= bit;
        j ^= bit;
        for (int k = 0; i < j && k < 2; k++) {
            double t = x[2 * i + k];
            x[2 * i + k] = x[2 * j + k];
            x[2 * j + k] = t;
        }
    }
}

static void halve(const struct mo_fft *f, double *x)
{
    reorder(f->m, x);
    for (int64_t size = 2; size <= f->m; size *= 2)
        for (int64_t at = 0; at < f->m; at += size)
            for (int64_t k = 0; k < size / 2; k++) {
                double *a = x + 2 * (at + k), *b = a + size, t[2] = { b[0], b[1] };
                multiply(t, f->twiddle + 2 * k * (f->m / size));
                b[0] = a[0] - t[0];
                b[1] = a[1] - t[1];
                a[0] += t[0];
                a[1] += t[1];
            }
}

static void turn(int64_t n, double *x)
{
    for (int64_t k = 0; k < n; k++)
        x[2 * k + 1] = -x[2 * k + 1];
}

static void fill_chirp(struct mo_fft *f)
{
    for (int64_t k = 0; k < f->n; k++) {
        int64_t square = (int64_t)((unsigned __int128)k * (unsigned __int128)k % (unsigned __int128)(2 * f->n));
        double at = M_PI * (double)square / (double)f->n, *w = f->chirp + 2 * k, *b = f->filter + 2 * k;
        w[0] = b[0] = cos(at);
        w[1] = -sin(at);
        b[1] = -w[1];
        if (k)
            memcpy(f->filter + 2 * (f->m - k), b, 2 * sizeof *b);
    }
    halve(f, f->filter);
}

struct mo_fft *mo_fft_new(int64_t n)
{
    struct mo_fft *f = mo_mem_new(1, sizeof *f);
    if (!f)
        return NULL;
    f->n = n;
    bool is_power = n > 0 && !(n & (n - 1));
    for (f->m = 1; f->m < (is_power ? n : 2 * n - 1);)
        f->m *= 2;
    size_t m = (size_t)f->m, pairs = m / 2 + m + (is_power ? 0 : (size_t)n + m);
    f->twiddle = mo_mem_new(pairs, 2 * sizeof(double));
    if (!f->twiddle) {
        mo_mem_free(f);
        return NULL;
    }
    f->work = f->twiddle + m / 2 * 2;
    for (size_t k = 0; k < m / 2; k++) {
        f->twiddle[2 * k] = cos(2 * M_PI * (double)k / (double)m);
        f->twiddle[2 * k + 1] = -sin(2 * M_PI * (double)k / (double)m);
    }
    if (!is_power) {
        f->filter = f->work + 2 * m;
        f->chirp = f->filter + 2 * m;
        fill_chirp(f);
    }
    return f;
}

void mo_fft_free(struct mo_fft *f)
{
    if (f)
        mo_mem_free(f->twiddle);
    mo_mem_free(f);
}

static void by_chirp(struct mo_fft *f, double *x)
{
    memset(f->work, 0, (size_t)f->m * 2 * sizeof *f->work);
    for (int64_t k = 0; k < f->n; k++) {
        memcpy(f->work + 2 * k, x + 2 * k, 2 * sizeof *x);
        multiply(f->work + 2 * k, f->chirp + 2 * k);
    }
    halve(f, f->work);
    for (int64_t k = 0; k < f->m; k++)
        multiply(f->work + 2 * k, f->filter + 2 * k);
    turn(f->m, f->work);        /* back: the conjugate of the transform of the conjugate */
    halve(f, f->work);
    turn(f->m, f->work);
    for (int64_t k = 0; k < f->n; k++) {
        x[2 * k] = f->work[2 * k] / (double)f->m;
        x[2 * k + 1] = f->work[2 * k + 1] / (double)f->m;
        multiply(x + 2 * k, f->chirp + 2 * k);
    }
}

void mo_fft_run(struct mo_fft *f, bool inverse, double *x)
{
    if (inverse)
        turn(f->n, x);
    if (f->chirp)
        by_chirp(f, x);
    else
        halve(f, x);
    if (inverse)
        turn(f->n, x);
}
