/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fdinfo.h"
#include "file.h"

/* Whose signals it shows depends on who reads: there is nothing but the mask. */
struct signalfd {
	struct file file;
	uint64_t mask;
};

static const struct field signalfd_fields[] = {
	FIELD_FILE(struct signalfd),
	FIELD_UINT(struct signalfd, mask, 0, UINT64_MAX, "signals it accepts, bit signal - 1"),
	FIELD_END,
};

static bool signalfd_claims(const struct descriptor *descriptor)
{
	return !strcmp((char *)descriptor->path.data, "anon_inode:[signalfd]");
}

static struct cr_error *signalfd_dump(struct dump *dump, const struct descriptor *descriptor,
				      void *state)
{
	struct signalfd *saved = state;
	struct fdinfo info;

	(void)dump;
	TRY(fdinfo_read(descriptor, &info));
	return fdinfo_number(&info, "sigmask", 16, &saved->mask);
}

static struct cr_error *signalfd_check(struct dump *dump, const struct descriptor *descriptor)
{
	struct signalfd scrap = {0};

	return error_object(signalfd_dump(dump, descriptor, &scrap), "signalfd");
}

static struct cr_error *signalfd_restore(struct restore *restore, struct object *object,
					 const void *state)
{
	const struct signalfd *saved = state;

	(void)restore;
	object->fd = (int)syscall(SYS_signalfd4, -1, &saved->mask, sizeof(saved->mask), O_CLOEXEC);
	if (object->fd < 0)
		return error_sys("Failed to make signalfd %u", object->id);
	return file_set_flags(object, &saved->file);
}

const struct kind signalfd_kind = {
	.name = "signalfd",
	.doc = "Signalfd: signal mask",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct signalfd),
	.fields = signalfd_fields,
	.claims = signalfd_claims,
	.check_file = signalfd_check,
	.dump_file = signalfd_dump,
	.restore_file = signalfd_restore,
};
