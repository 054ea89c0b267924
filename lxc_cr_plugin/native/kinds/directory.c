/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <unistd.h>

#include "file.h"

struct directory {
	struct file file;
};

static const struct field directory_fields[] = {
	FIELD_FILE(struct directory),
	FIELD_END,
};

static bool directory_claims(const struct descriptor *descriptor)
{
	return S_ISDIR(descriptor->stat.st_mode);
}

static struct cr_error *directory_dump(struct dump *dump, const struct descriptor *descriptor,
				       void *state)
{
	(void)dump;
	(void)descriptor;
	(void)state; /* all there is to know is in struct file */
	return NULL;
}

static struct cr_error *directory_restore(struct restore *restore, struct object *object,
					  const void *state)
{
	const struct directory *directory = state;

	TRY(file_reopen(restore, object, &directory->file));
	/* a cookie of the file system's: where it is of no use any more, reading starts over */
	if (!(directory->file.flags & O_PATH) && directory->file.position &&
	    lseek(object->fd, (off_t)directory->file.position, SEEK_SET) < 0)
		log_say(&restore->log, CR_WARNING, "Directory '%s' will be read from its beginning",
			directory->file.path.data);
	return NULL;
}

const struct kind directory_kind = {
	.name = "directory",
	.doc = "Open directory, by its path",
	.scope = SCOPE_OBJECT,
	.size = sizeof(struct directory),
	.fields = directory_fields,
	.claims = directory_claims,
	.check_file = file_check_path,
	.dump_file = directory_dump,
	.restore_file = directory_restore,
	.reopens = file_reopens,
};
