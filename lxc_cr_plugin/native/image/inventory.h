/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The files of an image, seen from the engine: objects.cbor (the table of objects at the front),
 * state.cbor (header, records, end) and pages. docs/image-format.md has the layout.
 */
#ifndef CR_INVENTORY_H
#define CR_INVENTORY_H

#include "../log.h"
#include "../model.h"

/* Encode and write everything, durable when it returns. Changes the page numbers in the model. */
struct cr_error *inventory_write(struct image *image, int image_fd, struct log *log);

/* Read and check everything; the pages file is mapped, not read. All errors but CR_SYSTEM are
 * CR_IMAGE or CR_HOST. */
struct cr_error *inventory_read(struct image *image, int image_fd);

#endif
