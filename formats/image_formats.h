/* image_formats.h - BMP, PNM, TIFF, WebP and JPEG 2000 from memory; image_decode.h calls it for what is neither JPEG nor
 * PNG. */
#ifndef MO_IMAGE_FORMATS_H
#define MO_IMAGE_FORMATS_H

#include "formats/image_decode.h"

/* Pixels as RGB into buffer, or with buffer NULL only what the header says. MOPT_DATA and words in why when it is none of
 * them or broken, MOPT_LIMIT when it has more than max_pixels. */
enum mopt_status mo_image_formats(const uint8_t *bytes, size_t n_bytes, uint64_t max_pixels, struct mo_sample_buffer *buffer,
                                  struct mo_image_info *info, char *why, size_t why_bytes);

#endif
