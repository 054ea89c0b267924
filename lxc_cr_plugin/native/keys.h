/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Keys are made by a process of their own in the container, which possesses them until everybody
 * has them, and ends before the release. What a thread has of its own is linked there by itself.
 */
#ifndef CR_KEYS_H
#define CR_KEYS_H

#include "restore.h"

struct key_maker; /* NULL in struct restore: the image has no keys */

/* When all processes stand, and no further threads. */
struct cr_error *keys_begin(struct restore *restore);
/* When everybody has his: permissions and expiry as they were. */
struct cr_error *keys_finish(struct restore *restore);

/* The program's task gets session keyring @id. */
struct cr_error *keys_join_session(struct restore *restore, uint32_t id);
/* Append calls that make a keyring of the program's task, KEY_SPEC_..., what keyring @id was. */
struct cr_error *keys_fill(struct restore *restore, int special, uint32_t id);

#endif
