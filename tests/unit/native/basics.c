/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checks of errors, the log and pools, also when memory is out (linked with --wrap, see below). */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "checks.h"
#include "image/cpu.h"
#include "log.h"
#include "obstacles.h"
#include "parallel.h"
#include "pool.h"

/* How many more of these calls succeed; negative: all. */
static int calls_left = -1;

static bool call_fails(void)
{
	if (calls_left < 0)
		return false;
	return calls_left == 0 || calls_left-- == 0;
}

#define WRAPPED(type, name, parameters, arguments, failure)                                        \
	type __real_##name parameters;                                                             \
	type __wrap_##name parameters;                                                             \
	type __wrap_##name parameters                                                              \
	{                                                                                          \
		return call_fails() ? failure : __real_##name arguments;                           \
	}

WRAPPED(void *, malloc, (size_t size), (size), NULL)
WRAPPED(void *, calloc, (size_t count, size_t size), (count, size), NULL)

/* Mappings that stand: a leak that no sanitizer looks for. */
static int mappings;

void *__real_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset);
int __real_munmap(void *at, size_t size);
int __wrap_munmap(void *at, size_t size);

void *__wrap_mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset)
{
	void *mapped = MAP_FAILED;

	if (!call_fails())
		mapped = __real_mmap(at, size, prot, flags, fd, offset);
	mappings += mapped != MAP_FAILED;
	return mapped;
}

int __wrap_munmap(void *at, size_t size)
{
	mappings--;
	return __real_munmap(at, size);
}

int __wrap_vasprintf(char **ret, const char *fmt, va_list args) _printf_(2, 0);
int __wrap_asprintf(char **ret, const char *fmt, ...) _printf_(2, 3);
int __real_vasprintf(char **ret, const char *fmt, va_list args) _printf_(2, 0);

int __wrap_vasprintf(char **ret, const char *fmt, va_list args)
{
	if (!call_fails())
		return __real_vasprintf(ret, fmt, args);
	*ret = (char *)1; /* undefined after a failure: nobody may look at it */
	return -1;
}

int __wrap_asprintf(char **ret, const char *fmt, ...)
{
	va_list args;
	int length;

	va_start(args, fmt);
	length = __wrap_vasprintf(ret, fmt, args);
	va_end(args);
	return length;
}

static void check_errors(void)
{
	_cleanup_error_ struct cr_error *error = NULL;

	error = error_new(CR_GONE, "Failed to read task %d", 12);
	CHECK(error->code == CR_GONE && error->errnum == 0 && error->pid == 0);
	CHECK(strcmp(error->message, "Failed to read task 12") == 0);
	CHECK(!error->remedy && !error->object && strcmp(error->comm, "") == 0);

	error = error_task(error, 12, "a name that is much too long");
	CHECK(error->pid == 12 && strcmp(error->comm, "a name that is ") == 0);
	error = error_task(error, 13, NULL);
	CHECK(error->pid == 13 && strcmp(error->comm, "") == 0);
	error = error_object(error_object(error, NULL), "eventfd");
	error = error_object(error, "pipe");
	CHECK(strcmp(error->object, "eventfd") == 0);
	error = error_remedy(error, "Do %s", "this");
	error = error_remedy(error, "Do %s", "that");
	CHECK(strcmp(error->remedy, "Do that") == 0);

	/* The old message may be part of the new one */
	error = error_wrap(error, "Failed <%s>", error->message);
	CHECK(strcmp(error->message, "Failed <Failed to read task 12>: Failed to read task 12") ==
	      0);
	CHECK(error->code == CR_GONE && error->pid == 13 && strcmp(error->remedy, "Do that") == 0);
	CHECK_SUCCESS(error_wrap(NULL, "Not %s", "so"));
	CHECK_SUCCESS(error_remedy(NULL, "Nothing"));
	CHECK_SUCCESS(error_task(NULL, 1, "init"));
	CHECK_SUCCESS(error_object(NULL, "pipe"));
	cr_error_free(NULL);
}

static void check_system_errors(void)
{
	static const int errnums[] = {ENOENT, -ENOENT};
	struct cr_error *error;

	errno = EBADF;
	error = error_sys("Failed to close %d", 7);
	CHECK(error->code == CR_SYSTEM && error->errnum == EBADF);
	CHECK(strcmp(error->message, "Failed to close 7: Bad file descriptor") == 0);
	cr_error_free(error);
	for (size_t i = 0; i < 2; i++) {
		error = error_errno(errnums[i], "Failed to open %s", "x");
		CHECK(error->errnum == ENOENT);
		CHECK(strcmp(error->message, "Failed to open x: No such file or directory") == 0);
		cr_error_free(error);
	}
}

/* Each allocation on the way fails once; whatever comes out must be whole and freed. */
static void check_errors_without_memory(void)
{
	for (int left = 0; left < 8; left++) {
		struct cr_error *error;

		calls_left = left;
		errno = EIO;
		error = error_sys("Failed to read");
		error = error_wrap(error, "Failed to dump %d", 1);
		error = error_remedy(error, "Try again");
		error = error_task(error_object(error, "pipe"), 1, "init");
		calls_left = -1;
		CHECK(error->code == CR_SYSTEM || error->code == CR_MEMORY);
		CHECK(error->message && error->comm);
		if (left >= 6)
			CHECK(error->code == CR_SYSTEM && error->remedy);
		cr_error_free(error);
	}
}

static void check_nomem(void)
{
	struct cr_error *error = error_nomem();

	CHECK(error == error_nomem() && error->code == CR_MEMORY && error->errnum == ENOMEM);
	error = error_task(error_object(error_remedy(error, "Buy some"), "pipe"), 1, "init");
	CHECK(!error->remedy && !error->object && error->pid == 0);
	error = error_wrap(error, "Failed to dump pipe %d", 3);
	CHECK(error->code == CR_MEMORY && error->errnum == ENOMEM);
	CHECK(strcmp(error->message, "Failed to dump pipe 3: Out of memory") == 0);
	cr_error_free(error);
	cr_error_free(error_nomem());
}

struct heard {
	char text[256];
	unsigned int progress;
	struct log *log;
};

static void hear(void *context, int level, const char *text)
{
	struct heard *heard = context;
	size_t len = strlen(heard->text);

	snprintf(heard->text + len, sizeof(heard->text) - len, "%d%s ", level, text);
	if (strcmp(text, "provoke") == 0)
		log_say(heard->log, CR_DEBUG, "answer");
}

static void hear_progress(void *context, const char *stage, uint64_t done, uint64_t total)
{
	(void)stage, (void)done, (void)total;
	((struct heard *)context)->progress++;
}

static struct cr_held_lines held_lines;

static void check_held_lines(void)
{
	static const char wanted[] = "\0a\0\1\0\2b\nc";
	struct log log;
	struct heard heard = {.log = &log};
	struct cr_listener listener = {.context = &heard, .log = hear, .held = &held_lines};

	memset(&held_lines, 0, sizeof(held_lines));
	log_init(&log, &listener);
	log_hold(&log);
	log_say(&log, CR_DEBUG, "a");
	log_say(&log, CR_INFO, "%s", "");
	log_say(&log, CR_WARNING, "b\nc");
	CHECK(held_lines.used == sizeof(wanted) &&
	      !memcmp(held_lines.text, wanted, sizeof(wanted)));
	CHECK(!held_lines.told && !*heard.text);
	log_release(&log);
	CHECK(held_lines.told == held_lines.used && !strcmp(heard.text, "0a 1 2b\nc "));

	/* the last line that fits, and what does not */
	held_lines.used = held_lines.told = CR_HELD_ROOM - 4;
	heard.text[0] = '\0';
	log_hold(&log);
	log_say(&log, CR_DEBUG, "%s", "xyz");
	CHECK(held_lines.lost == 1 && held_lines.used == CR_HELD_ROOM - 4);
	log_say(&log, CR_DEBUG, "xy");
	log_say(&log, CR_DEBUG, "%s", "");
	CHECK(held_lines.lost == 2 && held_lines.used == CR_HELD_ROOM);
	log_release(&log);
	CHECK(!strcmp(heard.text, "0xy "));

	/* nowhere to keep anything */
	listener.held = NULL;
	log_hold(&log);
	log_say(&log, CR_INFO, "x");
	log_release(&log);
	CHECK(!strcmp(heard.text, "0xy "));
}

static void check_log(void)
{
	struct log log;
	struct heard heard = {.log = &log};
	struct cr_listener listener = {
		.context = &heard, .log = hear, .progress = hear_progress, .held = &held_lines};
	const struct cr_listener deaf = {0};

	log_init(&log, &listener);
	log_say(&log, CR_INFO, "a%d", 1);
	log_progress(&log, "writing", 1, 2);
	log_hold(&log);
	log_say(&log, CR_WARNING, "provoke");
	log_say(&log, CR_ERROR, "c");
	log_progress(&log, "writing", 2, 2);
	CHECK(strcmp(heard.text, "1a1 ") == 0 && heard.progress == 1);
	log_release(&log);
	log_say(&log, CR_DEBUG, "d");
	CHECK(strcmp(heard.text, "1a1 2provoke 3c 0answer 0d ") == 0);
	log_release(&log);

	/* without memory only what is held can be said */
	heard.text[0] = '\0';
	calls_left = 0;
	log_say(&log, CR_INFO, "lost");
	log_hold(&log);
	log_say(&log, CR_INFO, "kept");
	calls_left = -1;
	log_release(&log);
	CHECK(strcmp(heard.text, "1kept ") == 0);

	/* what nobody wants takes no memory */
	listener.lowest_level = CR_INFO;
	log_hold(&log);
	log_say(&log, CR_DEBUG, "unwanted");
	CHECK(held_lines.told == held_lines.used);
	log_release(&log);

	log_init(&log, NULL);
	log_hold(&log);
	log_say(&log, CR_INFO, "x");
	log_progress(&log, "x", 0, 0);
	log_release(&log);
	log_init(&log, &deaf);
	log_say(&log, CR_INFO, "x");
	log_progress(&log, "x", 0, 0);
}

static bool is_zeroed(const uint8_t *data, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (data[i])
			return false;
	return true;
}

static void check_pool(size_t chunk)
{
	static const size_t sizes[] = {0, 1, 15, 16, 17, 900, 1023, 1024, 1025, 5000, 300000};
	_cleanup_pool_ struct pool *pool = NULL;
	uint8_t *items[500];
	size_t i, n = sizeof(sizes) / sizeof(sizes[0]);

	if (!CHECK_SUCCESS(pool_create(chunk, &pool)))
		return;
	for (i = 0; i < 500; i++) {
		size_t size = sizes[i % n];

		items[i] = pool_alloc(pool, size);
		if (!CHECK(items[i] && (uintptr_t)items[i] % 16 == 0))
			return;
		CHECK(is_zeroed(items[i], size));
		memset(items[i], (int)i, size);
	}
	/* No item was laid over another */
	for (i = 0; i < 500; i++)
		for (size_t at = 0; at < sizes[i % n]; at++)
			if (items[i][at] != (uint8_t)i) {
				CHECK(!"items overlap");
				return;
			}
}

static void check_pool_limits(void)
{
	_cleanup_pool_ struct pool *pool = NULL;
	struct list list = {0};
	char *copy;

	pool_destroy(NULL);
	CHECK_ERROR(pool_create(SIZE_MAX, &pool), CR_MEMORY, "Out of memory");
	calls_left = 0;
	CHECK_ERROR(pool_create(0, &pool), CR_MEMORY, "Out of memory");
	calls_left = -1;
	if (!CHECK_SUCCESS(pool_create(1, &pool)))
		return;

	CHECK(!pool_alloc(pool, SIZE_MAX) && !pool_alloc(pool, SIZE_MAX - 40));
	CHECK(!pool_alloc(pool, SIZE_MAX / 2));
	CHECK(!pool_calloc(pool, SIZE_MAX / 4, 8) && pool_calloc(pool, 3, 5));
	CHECK(!pool_strndup(pool, "", SIZE_MAX));
	copy = pool_strndup(pool, "ab\0cd", 5);
	CHECK(copy && memcmp(copy, "ab\0cd", 6) == 0);
	copy = pool_memdup(pool, "abc", 2);
	CHECK(copy && memcmp(copy, "ab", 2) == 0);
	CHECK(pool_memdup(pool, NULL, 0) && pool_strndup(pool, NULL, 0));

	for (uint32_t i = 0; i < 1000; i++) {
		uint32_t *item = list_append(pool, &list, sizeof(*item));

		if (!CHECK(item && *item == 0))
			return;
		*item = i;
	}
	CHECK(list.count == 1000 && ((uint32_t *)list.items)[999] == 999);
	calls_left = 0;
	while (list.count < list.room)
		CHECK(list_append(pool, &list, sizeof(uint32_t)));
	CHECK(!list_append(pool, &list, sizeof(uint32_t)) && list.count == 1024);
	calls_left = -1;
	CHECK(!list_append(pool, &list, SIZE_MAX / 16));
	list.count = list.room = SIZE_MAX / 2 + 1;
	CHECK(!list_append(pool, &list, 1));
}

/* Every item once, whatever the number of parts. */
static struct cr_error *count_items(void *context, uint64_t begin, uint64_t end)
{
	uint8_t *seen = context;

	for (uint64_t i = begin; i < end; i++)
		seen[i]++;
	return NULL;
}

static struct cr_error *fail_at_the_end(void *context, uint64_t begin, uint64_t end)
{
	const uint64_t *count = context;

	if (end < *count)
		return NULL;
	return error_new(CR_GONE, "Part from %s", begin ? "later" : "the start");
}

static void check_parallel(void)
{
	static const uint64_t counts[] = {0, 1, 7, 8, 15, 16, 17, 1000, 1001};

	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		uint8_t seen[1001] = {0};
		uint64_t count = counts[i];

		CHECK_SUCCESS(parallel(count, 8, count_items, seen));
		for (uint64_t k = 0; k < sizeof(seen); k++)
			CHECK(seen[k] == (k < count));
		CHECK_ERROR(parallel(count, 8, fail_at_the_end, &count), CR_GONE, "Part from");
	}
}

static void check_processor(void)
{
	struct pool *pool;
	char *words;

	if (!CHECK_SUCCESS(pool_create(1 << 16, &pool)))
		return;
	CHECK_SUCCESS(cpu_missing(pool, "sse2 avx avx2 ", "fpu sse2 avx2 ", &words));
	CHECK(!strcmp(words, "avx "));
	CHECK_SUCCESS(cpu_missing(pool, "sse2 ", "sse2 avx ", &words));
	CHECK(!*words);
	CHECK_SUCCESS(cpu_features(pool, &words));
	CHECK(strstr(words, "sse2 ") && !strstr(words, "constant_tsc"));
	pool_destroy(pool);
}

static void note_obstacle(void *told, const struct cr_error *error)
{
	strcat(strcat(told, error->message), ";");
}

/* One that passed is forgotten, the others are told by process, with numbers in their order. */
static void check_obstacles(void)
{
	static const struct {
		int pid;
		const char *message;
	} met[] = {{12, "fd 10"}, {12, "fd 9"}, {3, "fd 11"}, {12, "fd 10"}, {3, "passed"}};
	char told[64] = "";
	struct cr_listener listener = {.context = told, .obstacle = note_obstacle};
	struct obstacles obstacles = {0};
	struct pool *pool;

	if (!CHECK_SUCCESS(pool_create(1 << 16, &pool)))
		return;
	for (size_t look = 0; look < 2; look++) {
		for (size_t i = 0; i < sizeof(met) / sizeof(met[0]) - look; i++) {
			struct cr_error *error = error_new(CR_UNSUPPORTED, "%s", met[i].message);

			CHECK_SUCCESS(
				obstacles_add(&obstacles, pool, error_task(error, met[i].pid, "")));
		}
		CHECK(obstacles_end_look(&obstacles) == 4 - look);
	}
	obstacles_tell(&obstacles, &listener);
	CHECK(!strcmp(told, "fd 11;fd 9;fd 10;"));
	obstacles_deinit(&obstacles);
	pool_destroy(pool);
}

int main(void)
{
	check_errors();
	check_system_errors();
	check_errors_without_memory();
	check_nomem();
	check_log();
	check_held_lines();
	check_pool(0);
	check_pool(1);
	check_pool(1 << 16);
	check_pool_limits();
	check_parallel();
	check_processor();
	check_obstacles();
	CHECK(mappings == 0);
	return checks_done();
}
