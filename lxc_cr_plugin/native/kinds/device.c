/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Character devices without state: null, zero, full, random, urandom. */
#include <sys/sysmacros.h>

#include "file.h"

struct device {
	struct file file;
};

static const struct field device_fields[] = {
	FIELD_FILE(struct device),
	FIELD_END,
};

enum { MEM_MAJOR = 1 };

static bool device_claims(const struct descriptor *descriptor)
{
	dev_t device = descriptor->stat.st_rdev;

	if (!S_ISCHR(descriptor->stat.st_mode) || major(device) != MEM_MAJOR)
		return false;
	return minor(device) == 3 || minor(device) == 5 || minor(device) == 7 ||
	       minor(device) == 8 || minor(device) == 9;
}

static struct cr_error *device_dump(struct dump *dump, const struct descriptor *descriptor,
				    void *state)
{
	(void)dump;
	(void)descriptor;
	(void)state; /* all there is to know is in struct file */
	return NULL;
}

static struct cr_error *device_restore(struct restore *restore, struct object *object,
				       const void *state)
{
	const struct device *device = state;
	struct stat stat;

	TRY(file_reopen(restore, object, &device->file));
	if (fstat(object->fd, &stat) < 0)
		return error_sys("Failed to look at '%s'", device->file.path.data);
	if (stat.st_rdev != device->file.device)
		return error_new(CR_HOST, "'%s' is not the device it was at the checkpoint",
				 device->file.path.data);
	return NULL;
}

const struct kind device_kind = {
	.name = "device",
	.doc = "Character device without state: /dev/null and its like",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct device),
	.fields = device_fields,
	.claims = device_claims,
	.check_file = file_check_path,
	.dump_file = device_dump,
	.restore_file = device_restore,
	.reopens = file_reopens,
};
