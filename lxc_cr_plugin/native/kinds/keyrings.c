/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keyrings.h"

#include <linux/keyctl.h>
#include <search.h>
#include <sys/syscall.h>

#include "../keys.h"
#include "../sharing.h"
#include "credentials.h"

const struct field keyrings_fields[] = {
	FIELD_UINT(struct keyrings, session, 0, UINT32_MAX,
		   "session keyring, object; 0: what init has from the runtime"),
	FIELD_UINT(struct keyrings, process, 0, UINT32_MAX, "process keyring, 0: none"),
	FIELD_UINT(struct keyrings, thread, 0, UINT32_MAX, "thread keyring, 0: none"),
	FIELD_UINT(struct keyrings, requested, 0, 7,
		   "where requested keys go: KEY_REQKEY_DEFL_..."),
	FIELD_END,
};

/* A session keyring that was met. */
struct session_keyring {
	uint64_t address;
	uint32_t id;
	bool lost; /* a restart cannot give it back */
};

static int compare(const void *a, const void *b)
{
	const struct session_keyring *x = a, *y = b;

	return (x->address > y->address) - (x->address < y->address);
}

static struct cr_error *meet(struct dump *dump, uint64_t address, bool *is_new,
			     struct session_keyring **ret)
{
	struct session_keyring *met = pool_alloc(dump->image.pool, sizeof(*met)), **slot;

	if (!met)
		return error_nomem();
	met->address = address;
	slot = tsearch(met, &dump->session_keyrings, compare);
	if (!slot)
		return error_nomem();
	*is_new = *slot == met;
	*ret = *slot;
	return NULL;
}

struct cr_error *keyrings_note_outside(struct dump *dump, uint64_t keyring)
{
	struct session_keyring *session = NULL;
	bool is_new;

	if (!keyring)
		return NULL;
	TRY(meet(dump, keyring, &is_new, &session));
	session->lost = true;
	return NULL;
}

/* As a runtime makes it: the new container gets another one that is just so. */
static bool is_plain(const struct key *key)
{
	return !key->links.count && !key->remaining && !key->revoked &&
	       key->permissions == KEY_PERMISSIONS_SESSION &&
	       !strcmp((const char *)key->description.data, "_ses");
}

static struct cr_error *find_session(struct dump *dump, struct session_keyring *session)
{
	const struct key *key;
	struct object *object;

	TRY(key_object(dump, session->address, &session->id));
	if (!session->id) {
		session->lost = true;
		return NULL;
	}
	object = image_object(&dump->image, session->id);
	key = object->state;
	session->lost = key->of_user;
	if (key->of_user ||
	    (session->address == dump->init->kernel->session_keyring && is_plain(key)))
		session->id = 0;
	return NULL;
}

static struct cr_error *dump_session(struct dump *dump, const struct thread *thread, uint32_t *ret)
{
	uint64_t address = thread->kernel->session_keyring;
	struct session_keyring *session = NULL;
	bool is_new = false;

	*ret = 0;
	if (!address)
		return NULL;
	TRY(meet(dump, address, &is_new, &session));
	if (is_new)
		TRY(find_session(dump, session));
	*ret = session->id;
	if (session->lost && !dump->running && thread_is_leader(thread) &&
	    address != dump->init->kernel->session_keyring)
		log_say(&dump->log, CR_WARNING,
			"Process %d (%s) has the session keyring of a user or of somebody outside: "
			"after a restart it has that of init",
			thread->process->pid, thread->process->stat.comm);
	return NULL;
}

/* Threads are born with it, or without. */
static struct cr_error *dump_process_keyring(struct dump *dump, const struct thread *thread,
					     uint32_t *ret)
{
	const struct thread *leader = process_leader(thread->process);
	uint64_t address = thread->kernel->process_keyring;
	struct cr_error *error;

	*ret = 0;
	if (address == leader->kernel->process_keyring &&
	    (!address || thread == leader || !sharing_is_apart(thread)))
		return address ? key_object(dump, address, ret) : NULL;
	error = error_new(
		CR_UNSUPPORTED,
		"Thread %d of process %d (%s) has a process keyring that is not the first "
		"thread's",
		thread->tid, thread->process->pid, thread->process->stat.comm);
	return error_remedy(error_object(error, "process_keyring"),
			    "Not supported: restart the process");
}

struct cr_error *keyrings_dump(struct dump *dump, const struct thread *thread, struct keyrings *ret)
{
	*ret = (struct keyrings){0};
	if (!dump->key_layout.known)
		return NULL;
	TRY(dump_session(dump, thread, &ret->session));
	TRY(dump_process_keyring(dump, thread, &ret->process));
	ret->requested = thread->kernel->requested_keys;
	if (!thread->kernel->thread_keyring)
		return NULL;
	return key_object(dump, thread->kernel->thread_keyring, &ret->thread);
}

/* ---- restart ---- */

static const struct keyrings *keyrings_of(const struct thread *thread)
{
	return credentials_keyrings(thread);
}

static bool is_born_plainly(const struct thread *thread)
{
	return !thread_is_leader(thread) && !thread->birth;
}

/* Do all that are still to be born have the first thread's session keyring? */
static bool is_common(const struct process *process)
{
	uint32_t session = keyrings_of(process_leader(process))->session;

	for_each (struct thread *, thread, &process->threads) {
		if (is_born_plainly(thread) && keyrings_of(thread)->session != session)
			return false;
	}
	return true;
}

struct cr_error *keyrings_join(struct restore *restore, struct process *process)
{
	const struct keyrings *keyrings = keyrings_of(process_leader(process));

	if (keyrings->session && is_common(process))
		TRY(keys_join_session(restore, keyrings->session));
	if (keyrings->process)
		TRY(keys_fill(restore, KEY_SPEC_PROCESS_KEYRING, keyrings->process));
	return NULL;
}

struct cr_error *keyrings_restore(struct restore *restore, struct thread *thread)
{
	const struct keyrings *keyrings = keyrings_of(thread);
	bool has_it =
		(thread_is_leader(thread) || is_born_plainly(thread)) && is_common(thread->process);

	if (keyrings->session && !has_it)
		TRY(keys_join_session(restore, keyrings->session));
	if (keyrings->thread)
		TRY(keys_fill(restore, KEY_SPEC_THREAD_KEYRING, keyrings->thread));
	if (keyrings->requested)
		program_call(restore->program, "choose where requested keys go", SYS_keyctl,
			     KEYCTL_SET_REQKEY_KEYRING, keyrings->requested);
	return NULL;
}
