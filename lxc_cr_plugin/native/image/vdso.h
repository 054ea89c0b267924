/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_VDSO_H
#define CR_VDSO_H

#include <stdint.h>

/* A number that tells one kernel's vdso from another's: programs hold addresses inside it. 0: there
 * is none. */
uint64_t vdso_fingerprint(void);

#endif
