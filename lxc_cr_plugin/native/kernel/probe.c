/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "probe.h"

#include <asm/prctl.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../cleanup.h"

#ifndef PR_THP_DISABLE_EXCEPT_ADVISED
#define PR_THP_DISABLE_EXCEPT_ADVISED 2 /* Linux 6.18 */
#endif

#ifndef ARCH_SET_CPUID
#define ARCH_SET_CPUID 0x1012
#endif

enum setting { NO_CPUID, THP_ADVISED, LANDLOCK };

static bool restrict_oneself(void)
{
	struct landlock_ruleset_attr rules = {.handled_access_fs = LANDLOCK_ACCESS_FS_EXECUTE};
	long fd = syscall(SYS_landlock_create_ruleset, &rules, sizeof(rules), 0);

	return fd >= 0 && syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
	       syscall(SYS_landlock_restrict_self, fd, 0) == 0;
}

static bool set(enum setting setting)
{
	switch (setting) {
	case NO_CPUID: return syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0) == 0;
	case THP_ADVISED:
		return syscall(SYS_prctl, PR_SET_THP_DISABLE, 1, PR_THP_DISABLE_EXCEPT_ADVISED, 0,
			       0) == 0;
	case LANDLOCK: return restrict_oneself();
	}
	return false;
}

/* Two descriptors that are closed together. */
struct ends {
	int read, write;
};

static void close_ends(struct ends *ends)
{
	if (ends->read >= 0)
		close(ends->read);
	if (ends->write >= 0)
		close(ends->write);
}

static struct cr_error *make_ends(struct ends *ret)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return error_sys("Failed to make a pipe");
	*ret = (struct ends){fds[0], fds[1]};
	return NULL;
}

/* Say that it stands, wait, make the setting, say so, and wait for the end. */
static void be_probed(enum setting setting, int orders, int reports)
{
	char answer = 's', order;

	/* it has copies of our pipes: whoever listens to them must hear when we die */
	syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	if (syscall(SYS_write, reports, &answer, 1) != 1 ||
	    syscall(SYS_read, orders, &order, 1) != 1)
		syscall(SYS_exit_group, 1);
	answer = set(setting) ? 'y' : 'n';
	syscall(SYS_write, reports, &answer, 1);
	for (;;)
		syscall(SYS_pause);
}

static bool is_child(void *context, const struct kernel_task *task)
{
	return task->pid == *(const pid_t *)context;
}

enum { WORDS = PEEK_MAX / sizeof(uint64_t) };

struct sample {
	uint64_t thread, mm;
	uint64_t security[WORDS]; /* and what happens to lie behind it */
};

struct prober {
	struct kernel_reader *reader;
	struct kernel_peek *peek; /* NULL: security is not wanted */
	struct pool *pool;
};

static struct cr_error *look(const struct prober *prober, pid_t child, struct sample *ret)
{
	const struct kernel_task *task;
	struct list tasks = {0};

	TRY(kernel_reader_tasks(prober->reader, prober->pool, is_child, &child, &tasks));
	if (!tasks.count)
		return error_new(CR_INTERNAL, "The process that tries settings is gone");
	task = tasks.items;
	*ret = (struct sample){.thread = task->thread_flags, .mm = task->mm_flags};
	return prober->peek && task->security
		       ? kernel_peek(prober->peek, task->security, ret->security, PEEK_MAX)
		       : NULL;
}

static char ask(int fd)
{
	char answer = 0;

	return read(fd, &answer, 1) == 1 ? answer : 'n';
}

/* What has been added to the flags; of words, those that have become an address in the kernel. */
static void subtract(const struct sample *before, const struct sample *after, struct sample *ret)
{
	*ret = (struct sample){.thread = after->thread & ~before->thread,
			       .mm = after->mm & ~before->mm};
	for (size_t i = 0; i < WORDS; i++) {
		if (!before->security[i] && (int64_t)after->security[i] < 0)
			ret->security[i] = after->security[i];
	}
}

static struct cr_error *compare(const struct prober *prober, pid_t child, int orders, int reports,
				struct sample *ret)
{
	struct sample before, after;

	if (ask(reports) != 's')
		return error_new(CR_INTERNAL, "The process that tries settings has ended");
	TRY(look(prober, child, &before));
	if (write(orders, "g", 1) != 1)
		return error_sys("Failed to go on with a setting");
	if (ask(reports) != 'y')
		return NULL;
	TRY(look(prober, child, &after));
	subtract(&before, &after, ret);
	return NULL;
}

/* *ret: what has been added, and perhaps more that happens to be there. */
static struct cr_error *try_once(const struct prober *prober, enum setting setting,
				 struct sample *ret)
{
	_cleanup_(close_ends) struct ends orders = {-1, -1}, reports = {-1, -1};
	struct cr_error *error;
	pid_t child;

	TRY(make_ends(&orders));
	TRY(make_ends(&reports));
	child = fork();
	if (child < 0)
		return error_sys("Failed to make a process that tries settings");
	if (child == 0)
		be_probed(setting, orders.read, reports.write);
	error = compare(prober, child, orders.write, reports.read, ret);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	return error;
}

static bool is_one_bit(uint64_t bits)
{
	return bits && !(bits & (bits - 1));
}

/* Flags come and go by themselves: what is there every time is it. */
static struct cr_error *find(const struct prober *prober, enum setting setting, uint64_t *ret)
{
	enum { TRIES = 8 };
	uint64_t common = UINT64_MAX;

	*ret = 0;
	for (int i = 0; i < TRIES && common; i++) {
		struct sample added = {0};

		TRY(try_once(prober, setting, &added));
		common &= setting == THP_ADVISED ? added.mm : added.thread;
		if (is_one_bit(common) && i) {
			*ret = common;
			return NULL;
		}
	}
	return NULL;
}

struct cr_error *kernel_probe(struct kernel_reader *reader, struct pool *pool,
			      struct kernel_bits *ret)
{
	const struct prober prober = {.reader = reader, .pool = pool};

	TRY(find(&prober, NO_CPUID, &ret->no_cpuid));
	return find(&prober, THP_ADVISED, &ret->thp_advised);
}

/* ---- Landlock ---- */

static bool has_landlock(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) > 0;
}

/* Its word lies before whatever happens to lie behind. */
struct cr_error *kernel_landlock_find(struct kernel_reader *reader, struct kernel_peek *peek,
				      struct pool *pool, struct kernel_landlock *ret)
{
	enum { TRIES = 3 };
	const struct prober prober = {.reader = reader, .peek = peek, .pool = pool};
	bool always[WORDS];

	*ret = (struct kernel_landlock){.exists = has_landlock()};
	memset(always, ret->exists, sizeof(always));
	for (int i = 0; i < TRIES && ret->exists; i++) {
		struct sample added = {0};

		TRY(try_once(&prober, LANDLOCK, &added));
		for (size_t word = 0; word < WORDS; word++)
			always[word] = always[word] && added.security[word];
	}
	while (ret->place < WORDS && !always[ret->place])
		ret->place++;
	ret->found = ret->place < WORDS;
	ret->place *= sizeof(uint64_t);
	return NULL;
}

struct cr_error *kernel_landlock_restricts(const struct kernel_landlock *landlock,
					   struct kernel_peek *peek, const struct kernel_task *task,
					   bool *ret)
{
	uint64_t domain = 0;

	if (landlock->found && task->security)
		TRY(kernel_peek(peek, task->security + landlock->place, &domain, sizeof(domain)));
	*ret = domain;
	return NULL;
}
