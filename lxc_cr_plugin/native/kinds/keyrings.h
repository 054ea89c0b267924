/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The keyrings that are part of a thread's credentials: keyrings(7). */
#ifndef CR_KEYRINGS_H
#define CR_KEYRINGS_H

#include "key.h"

struct keyrings {
	uint32_t session, process, thread; /* key objects; session 0: what init has, else none */
	uint32_t requested;		   /* KEY_REQKEY_DEFL_...: KEYCTL_SET_REQKEY_KEYRING */
};

extern const struct field keyrings_fields[];

/* Somebody outside has this session keyring: it is none of ours. */
struct cr_error *keyrings_note_outside(struct dump *dump, uint64_t keyring);

struct cr_error *keyrings_dump(struct dump *dump, const struct thread *thread,
			       struct keyrings *ret);

/* The session and process keyrings of a process, which its threads are born with. */
struct cr_error *keyrings_join(struct restore *restore, struct process *process);
/* Those that the thread was not born with. */
struct cr_error *keyrings_restore(struct restore *restore, struct thread *thread);

#endif
