/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* First and last record of state.cbor: what the rest requires of its reader, and that it is all
 * there. */
#ifndef CR_HEADER_H
#define CR_HEADER_H

#include "../model.h"

#define HEADER_END "end"

struct cr_error *header_write(struct image *image, struct record_writer *writer);
struct cr_error *header_read(struct image *image, struct record_reader *reader);
/* Could this host run it? A program has addresses inside the vdso. */
struct cr_error *header_check_host(struct image *image);
struct cr_error *header_write_end(struct image *image, struct record_writer *writer);
struct cr_error *header_check_end(struct image *image, struct record_reader *reader,
				  uint64_t records);

#endif
