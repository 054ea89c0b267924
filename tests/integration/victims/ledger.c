/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Files and memory of one instant: a number in memory, and the same in a file that is rewritten in
 * place, in one that is mapped, in one that is replaced, and in the name of one that comes and goes.
 * What the files must hold follows at every instruction from how far the program has come.
 */
#include "victim.h"

struct ledger {
	int written;
	uint64_t *mapped;
	char place[256];
	uint64_t number;
};

static const char *path(const struct ledger *ledger, const char *name)
{
	static char text[320];

	snprintf(text, sizeof(text), "%s-%s", ledger->place, name);
	return text;
}

static uint64_t number_in(const char *file)
{
	uint64_t number;
	int fd = must(open(file, O_RDONLY | O_CLOEXEC));

	check(read(fd, &number, sizeof(number)) == sizeof(number), "%s is too short", file);
	close(fd);
	return number;
}

static void replace(const struct ledger *ledger)
{
	char old[320], new[320];
	int fd;

	snprintf(new, sizeof(new), "%s", path(ledger, "replaced"));
	snprintf(old, sizeof(old), "%s", path(ledger, "new"));
	fd = must(open(old, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
	check(write(fd, &ledger->number, sizeof(ledger->number)) == sizeof(ledger->number),
	      "write: %s", strerror(errno));
	close(fd);
	must(rename(old, new));
}

static void name_of(const struct ledger *ledger, uint64_t number, char *ret, size_t size)
{
	snprintf(ret, size, "%s-is-%lu", ledger->place, number);
}

static void look(const struct ledger *ledger)
{
	uint64_t number;
	char name[320];

	check(pread(ledger->written, &number, sizeof(number), 0) == sizeof(number), "pread: %s",
	      strerror(errno));
	check(number == ledger->number, "memory has %lu, the file %lu", ledger->number, number);
	check(number_in(path(ledger, "written")) == ledger->number, "the file has another inode");
	check(*ledger->mapped == ledger->number, "memory has %lu, the mapping %lu", ledger->number,
	      *ledger->mapped);
	number = number_in(path(ledger, "mapped"));
	check(number == ledger->number, "memory has %lu, the mapped file %lu", ledger->number,
	      number);
	number = number_in(path(ledger, "replaced"));
	check(number == ledger->number, "memory has %lu, the replaced file %lu", ledger->number,
	      number);
	name_of(ledger, ledger->number, name, sizeof(name));
	check(access(name, F_OK) == 0, "%s is not there", name);
	name_of(ledger, ledger->number + 1, name, sizeof(name));
	check(access(name, F_OK) < 0, "%s is already there", name);
}

static void enter(struct ledger *ledger)
{
	char old[320], new[320];

	name_of(ledger, ledger->number, old, sizeof(old));
	ledger->number++;
	check(pwrite(ledger->written, &ledger->number, sizeof(ledger->number), 0) ==
		      sizeof(ledger->number),
	      "pwrite: %s", strerror(errno));
	*ledger->mapped = ledger->number;
	replace(ledger);
	name_of(ledger, ledger->number, new, sizeof(new));
	must(rename(old, new));
}

static void begin(struct ledger *ledger)
{
	char name[320];
	int fd;

	snprintf(ledger->place, sizeof(ledger->place), "%s", victim_path);
	ledger->written = must(open(path(ledger, "written"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	must(pwrite(ledger->written, &ledger->number, sizeof(ledger->number), 0));
	fd = must(open(path(ledger, "mapped"), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	must(ftruncate(fd, 4096));
	ledger->mapped = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	check(ledger->mapped != MAP_FAILED, "mmap: %s", strerror(errno));
	close(fd);
	replace(ledger);
	name_of(ledger, 0, name, sizeof(name));
	close(must(open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)));
}

int main(int argc, char **argv)
{
	struct ledger ledger = {0};

	victim_init(argc, argv);
	begin(&ledger);
	victim_ready();
	while (!victim_told_to_go()) {
		look(&ledger);
		enter(&ledger);
		victim_nap(1);
	}
	look(&ledger);
	victim_ok();
	return 0;
}
