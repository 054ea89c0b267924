/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "open_file.h"

#include <linux/btf.h>
#include <string.h>

#include "../cleanup.h"
#include "fields.h"

/* As the kernel has it. */
struct raw {
	uint64_t position;
	uint64_t owner; /* struct pid */
	uint64_t inode, locks, marks;
	uint32_t write_hint;
	uint32_t flags;
	uint32_t owner_type;
	int32_t owner_signal;
	uint32_t owner_uid, owner_euid;
};

/* clang-format off */
#define FIELD(member, ...) KERNEL_FIELD(struct raw, member, __VA_ARGS__)

/* From struct file. A pointer of its own to the owner since Linux 6.12, NULL until there is one. */
static const struct kernel_field fields[] = {
	FIELD(position, "f_pos"),
	FIELD(flags, "f_flags"),
	FIELD(inode, "f_inode->i_ino"),
	FIELD(locks, "f_inode->i_flctx"),
	FIELD(write_hint, "f_inode->i_write_hint"),
	KERNEL_FIELD_IF_ANY(struct raw, marks, "f_inode->i_fsnotify_marks"),
	FIELD(owner, "f_owner->pid", "f_owner.pid"),
	FIELD(owner_type, "f_owner->pid_type", "f_owner.pid_type"),
	FIELD(owner_signal, "f_owner->signum", "f_owner.signum"),
	FIELD(owner_uid, "f_owner->uid", "f_owner.uid"),
	FIELD(owner_euid, "f_owner->euid", "f_owner.euid"),
};
/* clang-format on */

enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };

struct kernel_open_files {
	struct kernel_peek *peek;
	struct btf_place places[FIELDS];
	uint32_t pid_numbers; /* in struct pid */
	uint32_t private_data;
	uint32_t eventfd_flags;	      /* in struct eventfd_ctx */
	struct btf_place timer_state; /* in struct timerfd_ctx; no size: this kernel has it not */
};

static const struct btf_wanted members[] = {
	{offsetof(struct kernel_open_files, private_data), "file", "private_data"},
	{offsetof(struct kernel_open_files, eventfd_flags), "eventfd_ctx", "flags"},
};

static struct cr_error *locate_all(const struct btf *btf, struct kernel_open_files *files)
{
	struct btf_place place;
	uint32_t type;

	type = btf_find(btf, BTF_KIND_STRUCT, "file");
	if (!type)
		return error_new(CR_HOST, "This kernel has no struct file");
	for (size_t i = 0; i < FIELDS; i++) {
		/* what this kernel has not is read as nothing */
		if (fields[i].optional && !btf_locate(btf, type, fields[i].paths[0], &place))
			continue;
		TRY(kernel_field_locate(btf, type, &fields[i], &files->places[i]));
	}
	files->pid_numbers = btf_pid_numbers(btf);
	type = btf_find(btf, BTF_KIND_STRUCT, "timerfd_ctx");
	if (!type || !btf_locate(btf, type, "t.tmr.state", &place) || place.size != 1)
		place = (struct btf_place){0};
	files->timer_state = place;
	return btf_offsets(btf, members, sizeof(members) / sizeof(members[0]), files);
}

struct cr_error *kernel_open_files_open(const struct btf *btf, struct kernel_peek *peek,
					struct kernel_open_files **ret)
{
	_cleanup_free_ struct kernel_open_files *files = calloc(1, sizeof(*files));

	if (!files)
		return error_nomem();
	TRY(locate_all(btf, files));
	files->peek = peek;
	*ret = steal_pointer(&files);
	return NULL;
}

void kernel_open_files_close(struct kernel_open_files *files)
{
	free(files);
}

static struct cr_error *read_field(struct kernel_open_files *files, uint64_t address,
				   const struct btf_place *place, void *ret)
{
	if (!place->size)
		return NULL;
	for (uint32_t i = 0; i < place->hop_count; i++) {
		TRY(kernel_peek(files->peek, address + place->hops[i], &address, sizeof(address)));
		if (!address)
			return NULL; /* what is not there reads as zeros */
	}
	return kernel_peek(files->peek, address + place->offset, ret, place->size);
}

struct cr_error *kernel_open_file_read(struct kernel_open_files *files, uint64_t file,
				       struct kernel_open_file *ret)
{
	struct raw raw = {0};

	for (size_t i = 0; i < FIELDS; i++)
		TRY(read_field(files, file, &files->places[i], (uint8_t *)&raw + fields[i].offset));
	*ret = (struct kernel_open_file){
		.flags = raw.flags,
		.position = raw.position,
		.owner_type = raw.owner_type,
		.owner_signal = raw.owner_signal,
		.owner_uid = raw.owner_uid,
		.owner_euid = raw.owner_euid,
		.inode = raw.inode,
		.locks = raw.locks,
		.marks = raw.marks,
		.write_hint = raw.write_hint,
		.owner_address = raw.owner,
	};
	/* numbers[0] is that of the initial pid namespace, and begins with it */
	return raw.owner ? kernel_peek(files->peek, raw.owner + files->pid_numbers, &ret->owner,
				       sizeof(ret->owner))
			 : NULL;
}

struct cr_error *kernel_eventfd_flags(struct kernel_open_files *files, uint64_t file, uint32_t *ret)
{
	uint64_t context;

	TRY(kernel_peek(files->peek, file + files->private_data, &context, sizeof(context)));
	return kernel_peek(files->peek, context + files->eventfd_flags, ret, sizeof(*ret));
}

struct cr_error *kernel_timerfd_is_queued(struct kernel_open_files *files, uint64_t file, bool *ret)
{
	enum { HRTIMER_STATE_ENQUEUED = 1 };
	uint64_t context;
	uint8_t state = 0;

	TRY(kernel_peek(files->peek, file + files->private_data, &context, sizeof(context)));
	TRY(read_field(files, context, &files->timer_state, &state));
	*ret = state & HRTIMER_STATE_ENQUEUED;
	return NULL;
}
