/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "file.h"

struct regular {
	struct file file;
};

static const struct field regular_fields[] = {
	FIELD_FILE(struct regular),
	FIELD_END,
};

static bool regular_claims(const struct descriptor *descriptor)
{
	return S_ISREG(descriptor->stat.st_mode) && descriptor->path.data[0] == '/' &&
	       strncmp((char *)descriptor->path.data, "/memfd:", strlen("/memfd:"));
}

static struct cr_error *regular_dump(struct dump *dump, const struct descriptor *descriptor,
				     void *state)
{
	(void)dump;
	(void)descriptor;
	(void)state; /* all there is to know is in struct file */
	return NULL;
}

static struct cr_error *regular_restore(struct restore *restore, struct object *object,
					const void *state)
{
	const struct regular *regular = state;

	TRY(file_reopen(restore, object, &regular->file));
	if (regular->file.flags & O_PATH)
		return NULL;
	if (lseek(object->fd, (off_t)regular->file.position, SEEK_SET) < 0)
		return error_sys("Failed to set the position in '%s'", regular->file.path.data);
	return NULL;
}

const struct kind regular_kind = {
	.name = "regular",
	.doc = "Open regular file, by its path",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct regular),
	.fields = regular_fields,
	.claims = regular_claims,
	.check_file = file_check_path,
	.dump_file = regular_dump,
	.restore_file = regular_restore,
};
