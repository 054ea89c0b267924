/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A process without a vdso, as a look at /proc finds it, in argv[1]: has it unmapped it, or none yet? */
#include "kinds/memory_special.h"

#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "checks.h"

/* Not used here. */
struct cr_error *program_reserve(struct program *program, size_t ops, size_t data)
{
	(void)program, (void)ops, (void)data;
	return NULL;
}

int program_append(struct program *program, const char *what, long nr, const uint64_t args[6])
{
	(void)program, (void)what, (void)nr, (void)args;
	return 0;
}

static const uint64_t one[] = {AT_RANDOM, 1, AT_NULL, 0}, another[] = {AT_RANDOM, 2, AT_NULL, 0},
		      none[] = {AT_NULL, 0};

/* What of its auxv was read before its mappings, and is there now. 0: it is no error. */
static int check(const char *directory, bool running, const uint64_t *before, const uint64_t *now)
{
	struct memory_map memory = {.auxv = {.data = (uint8_t *)before, .len = sizeof(one)}};
	struct process process = {.pid = 1, .memory = &memory};
	struct dump dump = {.running = running};
	struct cr_error *error;
	int code, file;

	process.proc = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	file = openat(process.proc, "auxv", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	CHECK(write(file, now, now == none ? sizeof(none) : sizeof(one)) > 0);
	CHECK(!close(file));
	CHECK_SUCCESS(pool_create(1 << 16, &dump.image.pool));
	error = special_check(&dump, &process);
	code = error ? (int)error->code : 0;
	cr_error_free(error);
	pool_destroy(dump.image.pool);
	CHECK(!close(process.proc));
	return code;
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	CHECK(check(argv[1], true, one, one) == CR_UNSUPPORTED);
	CHECK(check(argv[1], true, one, none) == CR_GONE);
	CHECK(check(argv[1], true, one, another) == CR_GONE);
	CHECK(check(argv[1], false, one, one) == CR_UNSUPPORTED);
	return checks_done();
}
