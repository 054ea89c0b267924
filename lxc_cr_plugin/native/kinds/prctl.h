/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef CR_PRCTL_H
#define CR_PRCTL_H

#include "../model.h"

#ifndef PR_THP_DISABLE_EXCEPT_ADVISED
#define PR_THP_DISABLE_EXCEPT_ADVISED 2 /* Linux 6.18 */
#endif

/* PR_SET_THP_DISABLE as the image has it: 0, 1, PR_THP_DISABLE_EXCEPT_ADVISED. */
uint32_t prctl_thp_disable(const struct process *process);

#endif
