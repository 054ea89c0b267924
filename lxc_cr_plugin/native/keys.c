/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keys.h"

#include <linux/keyctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include "clone.h"
#include "kinds/key.h"

enum {
	BATCH = 128, /* keys that one program makes */
	NOBODY = UINT32_MAX,
	/* nobody else's program may search or link it, whoever its user is, until all have it */
	PERMISSIONS_MADE = KEY_POSSESSOR_ALL,
	USER_SEARCH = 0x00080000,
	USER_LINK = 0x00100000,
	SECOND = 1000000000,
};

struct key_maker {
	struct helper helper;
	const struct key *open;	 /* the session keyring that can be joined now */
	uint32_t user, group;	 /* its file system ids now, of the container */
	struct object **by_name; /* all keys; equal type and description: neighbours */
	size_t count;
	int32_t *holders; /* keyrings of its own: one each for keys of the same name */
};

static struct program *begin(struct restore *restore)
{
	program_begin(restore->program, restore->key_maker->helper.host_pid);
	return restore->program;
}

/* In the container; who has no number there can have made nothing that matters: root stands in. */
static uint32_t user_of(const struct restore *restore, const struct key *key)
{
	uint32_t user = 0;

	cr_error_free(id_map_user(&restore->image.ids, key->uid, &user));
	return user;
}

static uint32_t group_of(const struct restore *restore, const struct key *key)
{
	uint32_t group = 0;

	cr_error_free(id_map_group(&restore->image.ids, key->gid, &group));
	return group;
}

/* Whose key it will be, and who may change it. */
static void act_for(struct restore *restore, uint32_t user, uint32_t group)
{
	struct key_maker *maker = restore->key_maker;

	if (group != maker->group)
		program_call(restore->program, "act for a key's group", SYS_setfsgid, group);
	if (user != maker->user)
		program_call(restore->program, "act for a key's owner", SYS_setfsuid, user);
	maker->user = user;
	maker->group = group;
}

/* ---- making ---- */

static int by_name(const void *a, const void *b)
{
	const struct object *x = *(struct object *const *)a, *y = *(struct object *const *)b;
	const struct key *ours = x->state, *theirs = y->state;
	int order = strcmp((char *)ours->type.data, (char *)theirs->type.data);

	if (!order)
		order = strcmp((char *)ours->description.data, (char *)theirs->description.data);
	return order ? order : (x->id > y->id) - (x->id < y->id);
}

static bool same_name(const struct key *a, const struct key *b)
{
	return !strcmp((char *)a->type.data, (char *)b->type.data) &&
	       !strcmp((char *)a->description.data, (char *)b->description.data);
}

/* In one keyring all names differ. Returns how many keyrings it takes. */
static uint32_t choose_holders(struct key_maker *maker)
{
	uint32_t most = 0;

	for (size_t i = 0; i < maker->count; i++) {
		struct key *key = maker->by_name[i]->state;
		const struct key *previous = i ? maker->by_name[i - 1]->state : NULL;

		key->holder = previous && same_name(previous, key) ? previous->holder + 1 : 0;
		most = key->holder > most ? key->holder : most;
	}
	return most + 1;
}

static struct cr_error *make_holders(struct restore *restore, uint32_t count)
{
	struct key_maker *maker = restore->key_maker;
	struct program *p = begin(restore);

	maker->holders = pool_calloc(restore->image.pool, count, sizeof(*maker->holders));
	if (!maker->holders)
		return error_nomem();
	for (uint32_t done = 0; done < count;) {
		uint32_t n = count - done < BATCH ? count - done : BATCH;
		int calls[BATCH];

		for (uint32_t i = 0; i < n; i++) {
			char name[32];
			size_t length = (size_t)snprintf(name, sizeof(name), "lxc-cr %u", done + i);

			calls[i] = program_call(p, "make a keyring", SYS_add_key,
						program_data(p, "keyring", 8),
						program_data(p, name, length + 1), 0, 0,
						(uint64_t)(int64_t)KEY_SPEC_PROCESS_KEYRING);
		}
		TRY(program_run(p));
		for (uint32_t i = 0; i < n; i++)
			maker->holders[done + i] = (int32_t)program_result(p, calls[i]);
		done += n;
	}
	return NULL;
}

/* Its number: the kernel makes it when somebody of that user asks. */
static int find_of_user(struct restore *restore, const struct key *key)
{
	struct program *p = restore->program;
	uint64_t user = user_of(restore, key);
	int special =
		key->of_user == KEY_USER ? KEY_SPEC_USER_KEYRING : KEY_SPEC_USER_SESSION_KEYRING;
	int call;

	if (key->of_user == KEY_PERSISTENT)
		return program_call(p, "find the persistent keyring of a user", SYS_keyctl,
				    KEYCTL_GET_PERSISTENT, user,
				    (uint64_t)(int64_t)KEY_SPEC_PROCESS_KEYRING);
	program_call(p, "become a key's user", SYS_setreuid, user, (uint64_t)-1);
	call = program_call(p, "find the keyring of a user", SYS_keyctl, KEYCTL_GET_KEYRING_ID,
			    (uint64_t)(int64_t)special, 1);
	program_call(p, "become root again", SYS_setreuid, 0, (uint64_t)-1);
	return call;
}

static int add(struct restore *restore, const struct key *key)
{
	struct program *p = restore->program;
	uint64_t payload = 0;
	int call;

	act_for(restore, user_of(restore, key), group_of(restore, key));
	if (key->payload.len)
		payload = program_data(p, key->payload.data, key->payload.len);
	call = program_call(
		p, image_text(&restore->image, "add key '%s'", (char *)key->description.data),
		SYS_add_key, program_bytes(p, &key->type), program_bytes(p, &key->description),
		payload, key->payload.len,
		(uint64_t)(int64_t)restore->key_maker->holders[key->holder]);
	program_call(p, "protect a key", SYS_keyctl, KEYCTL_SETPERM, program_result_of(p, call),
		     PERMISSIONS_MADE | USER_LINK);
	program_indirect(p, 1);
	return call;
}

static struct cr_error *quota(struct cr_error *error)
{
	if (error && error->errnum == EDQUOT)
		return error_remedy(error, "Raise kernel.keys.maxkeys and kernel.keys.maxbytes "
					   "(root: root_maxkeys and root_maxbytes)");
	return error;
}

static bool has_room(const struct program *p, const struct key *key)
{
	return program_has_room(p, 8, key->payload.len + key->description.len + 256);
}

static struct cr_error *make_all(struct restore *restore)
{
	struct key_maker *maker = restore->key_maker;
	struct program *p = begin(restore);
	struct key *keys[BATCH];
	int calls[BATCH];
	size_t n = 0;

	for (size_t i = 0; i <= maker->count; i++) {
		struct key *key = i < maker->count ? maker->by_name[i]->state : NULL;

		if (!key || n == BATCH || !has_room(p, key)) {
			TRY(quota(program_run(p)));
			for (size_t done = 0; done < n; done++)
				keys[done]->serial = (int32_t)program_result(p, calls[done]);
			n = 0;
		}
		if (!key)
			break;
		keys[n] = key;
		calls[n++] = key->of_user ? find_of_user(restore, key) : add(restore, key);
	}
	return NULL;
}

/* ---- links ---- */

/* Into @keyring of the program's task, a number or KEY_SPEC_...; who acts must be its owner. */
static void link_key(struct program *p, uint32_t user, const struct key *key, int keyring)
{
	uint64_t into = (uint64_t)(int64_t)keyring;

	if (key->of_user == KEY_PERSISTENT)
		program_call(p, "link a persistent keyring", SYS_keyctl, KEYCTL_GET_PERSISTENT,
			     user, into);
	else
		program_call(p, "link a key", SYS_keyctl, KEYCTL_LINK,
			     (uint64_t)(int64_t)key->serial, into);
}

static struct cr_error *linked(const struct restore *restore, const struct object *keyring,
			       uint32_t id, const struct key **ret)
{
	const struct object *object = image_object(&restore->image, id);

	if (!object || object->kind != &key_kind || id >= keyring->id)
		return error_new(CR_IMAGE, "Keyring %u links to object %u, which is no key",
				 keyring->id, id);
	*ret = object->state;
	return NULL;
}

static struct cr_error *link_all(struct restore *restore)
{
	struct key_maker *maker = restore->key_maker;
	struct program *p = begin(restore);

	for (size_t i = 0; i < maker->count; i++) {
		const struct key *keyring = maker->by_name[i]->state, *key = NULL;
		const struct key_link *link = keyring->links.items;

		for (size_t l = 0; l < keyring->links.count; l++) {
			TRY(linked(restore, maker->by_name[i], link[l].object, &key));
			TRY(program_reserve(p, 4, 0));
			/* it possesses what it has made; keyrings of users are for those users */
			act_for(restore, user_of(restore, keyring->of_user ? keyring : key), 0);
			link_key(p, user_of(restore, key), key, keyring->serial);
		}
	}
	act_for(restore, 0, 0);
	return program_run(p);
}

/* ---- all together ---- */

static struct cr_error *list_keys(struct restore *restore)
{
	struct key_maker *maker = restore->key_maker;

	for_each (struct object *, object, &restore->image.objects)
		maker->count += object->kind == &key_kind;
	maker->by_name = pool_calloc(restore->image.pool, maker->count, sizeof(*maker->by_name));
	if (!maker->by_name)
		return error_nomem();
	maker->count = 0;
	for_each (struct object *, key, &restore->image.objects) {
		if (key->kind == &key_kind)
			maker->by_name[maker->count++] = key;
	}
	qsort(maker->by_name, maker->count, sizeof(*maker->by_name), by_name);
	return NULL;
}

struct cr_error *keys_begin(struct restore *restore)
{
	struct key_maker *maker;

	if (!image_holds(&restore->image, &key_kind))
		return NULL;
	maker = restore->key_maker = pool_alloc(restore->image.pool, sizeof(*maker));
	if (!maker)
		return error_nomem();
	maker->helper = (struct helper){.pid = restore->spare_pid, .parent = restore->init};
	program_begin(restore->program, restore->init);
	TRY(clone_process(restore, maker->helper.pid, 0, 0, &maker->helper.host_pid));
	TRY(list_keys(restore));
	TRY(make_holders(restore, choose_holders(maker)));
	TRY(make_all(restore));
	return link_all(restore);
}

static uint64_t seconds_left(const struct restore *restore, const struct key *key)
{
	uint64_t left = (restore_left(restore, key->remaining) + SECOND - 1) / SECOND;

	return left ? left : 1; /* 0 would be for ever */
}

struct cr_error *keys_finish(struct restore *restore)
{
	struct key_maker *maker = restore->key_maker;
	struct program *p;

	if (!maker)
		return NULL;
	p = begin(restore);
	for (size_t i = 0; i < maker->count; i++) {
		const struct key *key = maker->by_name[i]->state;
		uint64_t serial = (uint64_t)(int64_t)key->serial;

		if (key->of_user)
			continue;
		TRY(program_reserve(p, 6, 0));
		act_for(restore, user_of(restore, key), 0);
		if (key->remaining)
			program_call(p, "set when a key expires", SYS_keyctl, KEYCTL_SET_TIMEOUT,
				     serial, seconds_left(restore, key));
		program_call(p, "set the permissions of a key", SYS_keyctl, KEYCTL_SETPERM, serial,
			     key->permissions);
		if (key->revoked)
			program_call(p, "revoke a key", SYS_keyctl, KEYCTL_REVOKE, serial);
	}
	TRY(program_run(p));
	return clone_end_helper(restore, &maker->helper);
}

/* ---- what tasks do for themselves ---- */

/*
 * A session keyring is joined by its name, and many have the same one: only that which is wanted can
 * be searched at a time.
 */
static struct cr_error *open_session(struct restore *restore, const struct key *key)
{
	struct key_maker *maker = restore->key_maker;
	struct program *p = restore->program;
	pid_t tid = p->tid;

	if (maker->open == key)
		return NULL;
	TRY(program_run(p));
	p = begin(restore);
	if (maker->open) {
		act_for(restore, user_of(restore, maker->open), 0);
		program_call(p, "close a session keyring", SYS_keyctl, KEYCTL_SETPERM,
			     (uint64_t)(int64_t)maker->open->serial, PERMISSIONS_MADE);
	}
	act_for(restore, user_of(restore, key), 0);
	program_call(p, "open a session keyring", SYS_keyctl, KEYCTL_SETPERM,
		     (uint64_t)(int64_t)key->serial, PERMISSIONS_MADE | USER_SEARCH);
	TRY(program_run(p));
	maker->open = key;
	program_begin(p, tid);
	return NULL;
}

struct cr_error *keys_join_session(struct restore *restore, uint32_t id)
{
	struct program *p = restore->program;
	const struct key *key;
	struct object *object;
	uint32_t user;
	int call;

	TRY(key_keyring(restore, id, &object));
	key = object->state;
	user = user_of(restore, key);
	TRY(open_session(restore, key));
	TRY(program_reserve(p, 4, key->description.len + 64));
	if (user)
		program_call(p, "act for a keyring's owner", SYS_setfsuid, user);
	call = program_call(p, "join a session keyring", SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING,
			    program_bytes(p, &key->description));
	if (user)
		program_call(p, "act for itself again", SYS_setfsuid, 0);
	TRY(program_run(p));
	if (program_result(p, call) == key->serial)
		return NULL;
	return error_remedy(error_new(CR_HOST,
				      "There is another session keyring '%s' that may be searched",
				      (char *)key->description.data),
			    "Take KEY_USR_SEARCH from it (keyctl setperm), or let the container "
			    "have a user namespace of its own (lxc.idmap)");
}

/* Real ids make the owner, those for files the permission to change it. */
static void become(struct program *p, uint32_t user, uint32_t group)
{
	program_call(p, "become a keyring's group", SYS_setregid, group, (uint64_t)-1);
	program_call(p, "become a keyring's owner", SYS_setreuid, user, (uint64_t)-1);
	program_call(p, "act for a keyring's owner", SYS_setfsuid, user);
}

struct cr_error *keys_fill(struct restore *restore, int special, uint32_t id)
{
	struct program *p = restore->program;
	uint64_t number = (uint64_t)(int64_t)special;
	const struct key *keyring, *key = NULL;
	const struct key_link *link;
	struct object *object;
	uint32_t user;

	TRY(key_keyring(restore, id, &object));
	keyring = object->state;
	user = user_of(restore, keyring);
	TRY(program_reserve(p, 16, 0));
	become(p, user, group_of(restore, keyring));
	program_call(p, "make a keyring of its own", SYS_keyctl, KEYCTL_GET_KEYRING_ID, number, 1);
	link = keyring->links.items;
	for (size_t i = 0; i < keyring->links.count; i++) {
		TRY(linked(restore, object, link[i].object, &key));
		TRY(program_reserve(p, 8, 0));
		program_call(p, "act for a key's owner", SYS_setfsuid, user_of(restore, key));
		link_key(p, user_of(restore, key), key, special);
	}
	program_call(p, "act for a keyring's owner", SYS_setfsuid, user);
	program_call(p, "set the permissions of a keyring", SYS_keyctl, KEYCTL_SETPERM, number,
		     keyring->permissions);
	become(p, 0, 0);
	return program_run(p);
}
