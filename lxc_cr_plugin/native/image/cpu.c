/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "cpu.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "../cleanup.h"
#include "../target/arch/x86_64.h"

enum { FIRST_PROCESSOR = 16384 }; /* bytes of its paragraph, more than enough */

/* Is the word at @word, up to a blank, one of the @list of words? */
static bool is_in(const char *word, size_t len, const char *list)
{
	for (const char *at = list; (at = strstr(at, word)); at += len) {
		if ((at == list || at[-1] == ' ') && (at[len] == ' ' || !at[len]))
			return true;
	}
	return false;
}

/* Words of @list that are in @filter, or (@wanted false) are not. */
static struct cr_error *select_words(struct pool *pool, const char *list, const char *filter,
				     bool wanted, char **ret)
{
	size_t room = strlen(list) + 2, used = 0;
	char *result = pool_alloc(pool, room);
	char word[64];

	if (!result)
		return error_nomem();
	result[0] = 0;
	for (const char *at = list; *at; at += *at == ' ') {
		size_t len = strcspn(at, " ");

		if (len && len < sizeof(word)) {
			memcpy(word, at, len);
			word[len] = 0;
			if (is_in(word, len, filter) == wanted)
				used += (size_t)snprintf(result + used, room - used, "%s ", word);
		}
		at += len;
	}
	*ret = result;
	return NULL;
}

/* The first processor stands for all: the kernel uses what they have in common. */
struct cr_error *cpu_features(struct pool *pool, char **ret)
{
	_cleanup_close_ int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);
	char text[FIRST_PROCESSOR], *flags, *end;
	ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (got < 0)
		return error_sys("Failed to read /proc/cpuinfo");
	text[got] = 0;
	flags = strstr(text, "\n" ARCH_CPU_FLAGS);
	flags = flags ? strchr(flags + 1, ':') : NULL;
	end = flags ? strchr(flags, '\n') : NULL;
	if (!end)
		return error_new(CR_HOST, "/proc/cpuinfo does not tell the processor's features");
	*end = 0;
	return select_words(pool, flags + 1, ARCH_CPU_INSTRUCTIONS, true, ret);
}

struct cr_error *cpu_missing(struct pool *pool, const char *needed, const char *present, char **ret)
{
	return select_words(pool, needed, present, false, ret);
}
