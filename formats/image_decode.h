/* image_decode.h - pictures from memory: JPEG and PNG, and those of image_formats.h. */
#ifndef MO_IMAGE_DECODE_H
#define MO_IMAGE_DECODE_H

#include "lib/data/dataset.h"

struct mo_image_info { int height, width; bool is_grey; };

/* From the header alone. False and words in why when it is none. */
bool mo_image_info(const uint8_t *bytes, size_t n_bytes, struct mo_image_info *info, char *why, size_t why_bytes);
/* Pixels, channels (1 or 3) interleaved, into buffer. Alpha is left out, palettes and 16 bits become bytes, CMYK becomes
 * RGB; grey from colours is their luma. MOPT_DATA and words when the image is broken, also when it only ends too early;
 * MOPT_LIMIT when it has more pixels than max_pixels. */
enum mopt_status mo_image_decode(const uint8_t *bytes, size_t n_bytes, int channels, uint64_t max_pixels,
                                 struct mo_sample_buffer *buffer, int *height, int *width, char *why, size_t why_bytes);

#endif
