/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fdinfo.h"
#include "file.h"

struct eventfd {
	struct file file;
	uint64_t count;
	bool semaphore;
};

static const struct field eventfd_fields[] = {
	FIELD_FILE(struct eventfd),
	FIELD_UINT(struct eventfd, count, 0, UINT64_MAX - 1, "counter"),
	FIELD_BOOL(struct eventfd, semaphore, "EFD_SEMAPHORE: read(2) takes one, not all"),
	FIELD_END,
};

static bool eventfd_claims(const struct descriptor *descriptor)
{
	return !strcmp((char *)descriptor->path.data, "anon_inode:[eventfd]");
}

/* There is no way to tell by its behaviour that leaves the counter alone. */
static struct cr_error *read_mode(struct dump *dump, const struct descriptor *descriptor,
				  bool *semaphore)
{
	uint32_t flags;

	if (!dump->kernel_open_files)
		TRY(kernel_open_files_open(dump->btf, dump->peek, &dump->kernel_open_files));
	TRY(kernel_eventfd_flags(dump->kernel_open_files, descriptor->kernel->file, &flags));
	*semaphore = flags & EFD_SEMAPHORE;
	return NULL;
}

static struct cr_error *read_info(struct dump *dump, const struct descriptor *descriptor,
				  struct eventfd *ret)
{
	uint64_t semaphore;
	struct fdinfo info;

	TRY(fdinfo_read(descriptor, &info));
	TRY(fdinfo_number(&info, "eventfd-count", 16, &ret->count));
	/* since Linux 6.5 */
	if (!fdinfo_find(&info, "eventfd-semaphore", 10, &semaphore))
		return read_mode(dump, descriptor, &ret->semaphore);
	ret->semaphore = semaphore;
	return NULL;
}

static struct cr_error *eventfd_check(struct dump *dump, const struct descriptor *descriptor)
{
	struct eventfd scrap = {0};

	return error_object(read_info(dump, descriptor, &scrap), "eventfd");
}

static struct cr_error *eventfd_dump(struct dump *dump, const struct descriptor *descriptor,
				     void *state)
{
	return read_info(dump, descriptor, state);
}

static struct cr_error *eventfd_restore(struct restore *restore, struct object *object,
					const void *state)
{
	const struct eventfd *saved = state;

	(void)restore;
	object->fd = eventfd(0, EFD_CLOEXEC | (saved->semaphore ? EFD_SEMAPHORE : 0));
	if (object->fd < 0)
		return error_sys("Failed to make eventfd %u", object->id);
	/* eventfd(2) takes 32 bits, the counter has 64 */
	if (write(object->fd, &saved->count, sizeof(saved->count)) < 0)
		return error_sys("Failed to set the counter of eventfd %u", object->id);
	return file_set_flags(object, &saved->file);
}

const struct kind eventfd_kind = {
	.name = "eventfd",
	.doc = "Eventfd: counter and mode",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct eventfd),
	.fields = eventfd_fields,
	.claims = eventfd_claims,
	.check_file = eventfd_check,
	.dump_file = eventfd_dump,
	.restore_file = eventfd_restore,
};
