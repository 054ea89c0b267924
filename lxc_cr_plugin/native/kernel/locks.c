/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "locks.h"

#include <linux/btf.h>
#include <string.h>

#include "../cleanup.h"

enum { NAMES_MAX = 2, MOST_LOCKS = 1 << 20, DEEPEST = 4096 };

struct list_head {
	uint64_t next, previous;
};

/* Offsets of this kernel. */
struct layout {
	uint32_t lists[3]; /* of struct file_lock_context */
	uint32_t wait_private, wait_entry, wait_head, task_pid;
	uint32_t lock_size, lease_size;
	/* in struct file_lock and, since Linux 6.9 under a common head, struct file_lease */
	uint32_t list, blocked, member, owner, flags, type, pid, wait, file;
	uint32_t start, end, break_time, downgrade_time, fasync;
	uint32_t fasync_fd; /* of struct fasync_struct */
};

struct kernel_locks {
	struct kernel_peek *peek;
	struct layout layout;
};

enum which { LOCK, LEASE, OTHER };

struct member {
	size_t offset; /* in struct layout */
	enum which which;
	const char *root;
	const char *paths[NAMES_MAX]; /* newest kernel first */
	uint32_t size;
};

/* clang-format off */
#define MEMBER(name, which, root, size, ...) \
	{ offsetof(struct layout, name), which, root, { __VA_ARGS__ }, size }

static const struct member members[] = {
	MEMBER(lists[0], OTHER, "file_lock_context", 16, "flc_flock"),
	MEMBER(lists[1], OTHER, "file_lock_context", 16, "flc_posix"),
	MEMBER(lists[2], OTHER, "file_lock_context", 16, "flc_lease"),
	MEMBER(wait_private, OTHER, "wait_queue_entry", 8, "private"),
	MEMBER(wait_entry, OTHER, "wait_queue_entry", 16, "entry"),
	MEMBER(wait_head, OTHER, "wait_queue_head", 16, "head"),
	MEMBER(task_pid, OTHER, "task_struct", 4, "pid"),
	MEMBER(list, LOCK, "file_lock", 16, "c.flc_list", "fl_list"),
	MEMBER(blocked, LOCK, "file_lock", 16, "c.flc_blocked_requests", "fl_blocked_requests"),
	MEMBER(member, LOCK, "file_lock", 16, "c.flc_blocked_member", "fl_blocked_member"),
	MEMBER(owner, LOCK, "file_lock", 8, "c.flc_owner", "fl_owner"),
	MEMBER(flags, LOCK, "file_lock", 4, "c.flc_flags", "fl_flags"),
	MEMBER(type, LOCK, "file_lock", 1, "c.flc_type", "fl_type"),
	MEMBER(pid, LOCK, "file_lock", 4, "c.flc_pid", "fl_pid"),
	MEMBER(wait, LOCK, "file_lock", 0, "c.flc_wait", "fl_wait"),
	MEMBER(file, LOCK, "file_lock", 8, "c.flc_file", "fl_file"),
	MEMBER(start, LOCK, "file_lock", 8, "fl_start"),
	MEMBER(end, LOCK, "file_lock", 8, "fl_end"),
	MEMBER(break_time, LEASE, "file_lease", 8, "fl_break_time"),
	MEMBER(downgrade_time, LEASE, "file_lease", 8, "fl_downgrade_time"),
	MEMBER(fasync, LEASE, "file_lease", 8, "fl_fasync"),
	MEMBER(fasync_fd, OTHER, "fasync_struct", 4, "fa_fd"),
};
/* clang-format on */

static struct cr_error *locate(const struct btf *btf, const struct member *member, const char *root,
			       struct layout *layout)
{
	uint32_t type = btf_find(btf, BTF_KIND_STRUCT, root);
	struct btf_place place;
	bool found = false;

	for (int i = 0; !found && type && i < NAMES_MAX && member->paths[i]; i++)
		found = btf_locate(btf, type, member->paths[i], &place);
	if (!found || place.hop_count || place.bits ||
	    (member->size && (place.size < member->size || place.size > 16)))
		return error_new(CR_HOST, "This kernel has no member %s in struct %s",
				 member->paths[0], root);
	if (member->which != OTHER && place.offset + (member->size ? member->size : 64) > PEEK_MAX)
		return error_new(CR_HOST, "Struct %s of this kernel is too large", root);
	memcpy((char *)layout + member->offset, &place.offset, sizeof(place.offset));
	return NULL;
}

/* The end of what is read of each lock: no more than is needed, for what follows may not be there. */
static uint32_t end_of(const struct layout *layout, bool lease)
{
	uint32_t end = layout->wait + layout->wait_head + (uint32_t)sizeof(struct list_head);

	if (layout->file + 8 > end)
		end = layout->file + 8;
	/* fl_fasync comes before the times */
	if (lease)
		return layout->downgrade_time + 8 > end ? layout->downgrade_time + 8 : end;
	return layout->end + 8 > end ? layout->end + 8 : end;
}

static struct cr_error *find_layout(const struct btf *btf, struct layout *layout)
{
	const char *lease;

	/* one struct for both until Linux 6.8 */
	lease = btf_find(btf, BTF_KIND_STRUCT, "file_lease") ? "file_lease" : "file_lock";
	for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
		TRY(locate(btf, &members[i], members[i].which == LEASE ? lease : members[i].root,
			   layout));
	layout->lock_size = end_of(layout, false);
	layout->lease_size = end_of(layout, true);
	if (layout->lock_size > PEEK_MAX || layout->lease_size > PEEK_MAX)
		return error_new(CR_HOST, "Struct file_lock of this kernel is too large");
	return NULL;
}

struct cr_error *kernel_locks_open(const struct btf *btf, struct kernel_peek *peek,
				   struct kernel_locks **ret)
{
	_cleanup_free_ struct kernel_locks *locks = calloc(1, sizeof(*locks));

	if (!locks)
		return error_nomem();
	TRY(find_layout(btf, &locks->layout));
	locks->peek = peek;
	*ret = steal_pointer(&locks);
	return NULL;
}

void kernel_locks_close(struct kernel_locks *locks)
{
	free(locks);
}

static struct cr_error *peek_pointer(struct kernel_locks *locks, uint64_t address, uint64_t *ret)
{
	return kernel_peek(locks->peek, address, ret, sizeof(*ret));
}

/* ---- lists ---- */

struct walk {
	struct kernel_locks *locks;
	struct pool *pool;
	struct list *list;
	bool leases;
};

static struct cr_error *changed(void)
{
	return error_new(CR_GONE, "Locks changed while they were read");
}

/* Who sleeps on the wait queue of a request: the request is on that thread's stack or its own. */
static struct cr_error *find_sleeper(struct walk *walk, uint64_t address, const uint8_t *raw,
				     pid_t *ret)
{
	const struct layout *layout = &walk->locks->layout;
	uint32_t head = layout->wait + layout->wait_head;
	uint64_t entry = u64_at(raw, head), task;

	if (entry == address + head)
		return NULL;
	TRY(peek_pointer(walk->locks, entry - layout->wait_entry + layout->wait_private, &task));
	return kernel_peek(walk->locks->peek, task + layout->task_pid, ret, sizeof(*ret));
}

/* The number under which the lease was taken, as its signals tell it. */
static struct cr_error *find_number(struct walk *walk, const uint8_t *raw, int32_t *ret)
{
	uint64_t fasync = u64_at(raw, walk->locks->layout.fasync);

	*ret = -1;
	return fasync ? kernel_peek(walk->locks->peek, fasync + walk->locks->layout.fasync_fd, ret,
				    sizeof(*ret))
		      : NULL;
}

static struct cr_error *take(struct walk *walk, uint64_t address, const uint8_t *raw, bool waits)
{
	const struct layout *layout = &walk->locks->layout;
	struct kernel_lock *lock;

	if (walk->list->count >= MOST_LOCKS)
		return changed();
	lock = list_append(walk->pool, walk->list, sizeof(*lock));
	if (!lock)
		return error_nomem();
	*lock = (struct kernel_lock){
		.owner = u64_at(raw, layout->owner),
		.file = u64_at(raw, layout->file),
		.flags = u32_at(raw, layout->flags),
		.type = raw[layout->type],
		.pid = (pid_t)u32_at(raw, layout->pid),
		.waits = waits,
	};
	if (walk->leases) {
		lock->break_time = u64_at(raw, layout->break_time);
		lock->downgrade_time = u64_at(raw, layout->downgrade_time);
		TRY(find_number(walk, raw, &lock->fd));
	} else {
		lock->start = u64_at(raw, layout->start);
		lock->end = u64_at(raw, layout->end);
	}
	return waits ? find_sleeper(walk, address, raw, &lock->sleeper) : NULL;
}

/*
 * @head: address of a list head, @member: offset of the list's links in a lock. Nothing holds the
 * kernel's locks: links that do not fit together have changed under our eyes.
 */
static struct cr_error *walk_list(struct walk *walk, uint64_t head, uint32_t member, int depth)
{
	const struct layout *layout = &walk->locks->layout;
	struct list_head links;
	uint64_t previous = head;

	TRY(kernel_peek(walk->locks->peek, head, &links, sizeof(links)));
	while (links.next != head) {
		uint8_t raw[PEEK_MAX];
		uint64_t node = links.next, address = node - member;

		TRY(kernel_peek(walk->locks->peek, address, raw,
				walk->leases ? layout->lease_size : layout->lock_size));
		memcpy(&links, raw + member, sizeof(links));
		if (links.previous != previous || depth > DEEPEST)
			return changed();
		previous = node;
		TRY(take(walk, address, raw, depth > 0));
		/* most have nobody waiting: the head points to itself */
		if (u64_at(raw, layout->blocked) != address + layout->blocked)
			TRY(walk_list(walk, address + layout->blocked, layout->member, depth + 1));
	}
	return NULL;
}

struct cr_error *kernel_locks_read(struct kernel_locks *locks, uint64_t context, struct pool *pool,
				   struct list *ret)
{
	struct list list = {0};
	struct walk walk = {.locks = locks, .pool = pool, .list = &list};

	for (int i = 0; i < 3; i++) {
		walk.leases = i == 2;
		TRY(walk_list(&walk, context + locks->layout.lists[i], locks->layout.list, 0));
	}
	*ret = list;
	return NULL;
}
