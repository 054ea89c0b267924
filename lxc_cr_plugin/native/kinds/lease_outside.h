/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Leases of others on this host that somebody breaks just while lease-break-time is ours: they get
 * the time that was meant for one of the container's. It cannot be kept from happening, but told.
 */
#ifndef CR_LEASE_OUTSIDE_H
#define CR_LEASE_OUTSIDE_H

#include "../restore.h"

/* Before the number is changed for the first time. */
struct cr_error *leases_outside_look(struct restore *restore);
/* After the release: a warning for each whose time is not what it should be. */
void leases_outside_tell(struct restore *restore);

#endif
