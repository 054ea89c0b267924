/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Checks what the task iterator reports against /proc/PID/status and its neighbours. Runs as root. */
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <sched.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "kernel/tasks.h"
#include "stopped.h"
#include "types.h"

static void write_own(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		_exit(1);
	close(fd);
}

/* Leaves as little as possible at its default. */
static void change_everything(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[2] = {{0xc3, 0xc3, 0x41}, {0}};
	struct rlimit limit = {12345, RLIM_INFINITY};
	gid_t groups[] = {7, 3000000000u};
	sigset_t mask;

	setrlimit(RLIMIT_RTTIME, &limit);
	limit = (struct rlimit){0, 4096};
	setrlimit(RLIMIT_CORE, &limit);
	write_own("/proc/self/oom_score_adj", "432");
	write_own("/proc/self/coredump_filter", "0x1a5");
	write_own("/proc/self/timerslack_ns", "777777");
	umask(0123);
	prctl(PR_SET_NAME, "new\nline (x)");
	prctl(PR_CAPBSET_DROP, 5);
	setgroups(2, groups);
	if (setresgid(1, 2, 3) || prctl(PR_SET_KEEPCAPS, 1) || setresuid(0, 11, 12) ||
	    syscall(SYS_capset, &header, sets))
		_exit(2);
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 0, 0, 0);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	sigfillset(&mask);
	sigprocmask(SIG_SETMASK, &mask, NULL);
	syscall(SYS_tkill, syscall(SYS_gettid), SIGUSR1);
	kill((pid_t)syscall(SYS_getpid), SIGUSR2);
}

/* The init of a pid namespace, and a child of it in another session. */
static void live_apart(struct facts *facts)
{
	pid_t pid;

	if (unshare(CLONE_NEWPID))
		_exit(1);
	pid = fork();
	if (pid) {
		facts->threads[0].tid = pid;
		facts->ready = true;
		for (;;)
			pause();
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!fork()) {
		setsid();
		change_everything();
	}
	for (;;)
		pause();
}

static char *read_file(pid_t pid, const char *name)
{
	static char text[8192];
	char path[64];
	size_t got;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	file = fopen(path, "re");
	if (!CHECK(file))
		abort();
	got = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[got] = '\0';
	return text;
}

/* The @nth number behind "KEY:", the last one when negative. */
static uint64_t number(const char *text, const char *key, int nth, int base)
{
	char line[32];
	const char *at;
	uint64_t value = 0;
	char *end;

	snprintf(line, sizeof(line), "\n%s:", key);
	at = strstr(text, line);
	if (!CHECK(at))
		return 0;
	at += strlen(line);
	for (int i = 0; *at && *at != '\n' && (nth < 0 || i <= nth); i++, at = end)
		value = strtoull(at, &end, base);
	return value;
}

static void check_ids(const struct kernel_task *task, const char *text)
{
	CHECK(task->id.number == (int)number(text, "NSpid", -1, 10));
	CHECK(task->process_id.number == (int)number(text, "NStgid", -1, 10));
	CHECK(task->id.depth == task->depth && task->id.namespace);
	if (task->group_id.depth >= task->depth)
		CHECK(task->group_id.number == (int)number(text, "NSpgid", -1, 10));
	else
		CHECK(number(text, "NSpgid", -1, 10) == 0);
	if (task->session_id.depth >= task->depth)
		CHECK(task->session_id.number == (int)number(text, "NSsid", -1, 10));
	else
		CHECK(number(text, "NSsid", -1, 10) == 0);
}

static void check_credentials(const struct kernel_task *task, const char *text)
{
	const uint32_t uids[] = {task->uid, task->euid, task->suid, task->fsuid};
	const uint32_t gids[] = {task->gid, task->egid, task->sgid, task->fsgid};

	for (int i = 0; i < 4; i++) {
		CHECK(uids[i] == number(text, "Uid", i, 10));
		CHECK(gids[i] == number(text, "Gid", i, 10));
	}
	CHECK(task->cap_inheritable == number(text, "CapInh", 0, 16));
	CHECK(task->cap_permitted == number(text, "CapPrm", 0, 16));
	CHECK(task->cap_effective == number(text, "CapEff", 0, 16));
	CHECK(task->cap_bounding == number(text, "CapBnd", 0, 16));
	CHECK(task->cap_ambient == number(text, "CapAmb", 0, 16));
	CHECK((task->atomic_flags & 1) == number(text, "NoNewPrivs", 0, 10));
	CHECK(task->seccomp == number(text, "Seccomp", 0, 10));
	CHECK(task->seccomp_filters == number(text, "Seccomp_filters", 0, 10));
}

static bool is_limit(const char **text, uint64_t value)
{
	char expected[32];

	*text += strspn(*text, " ");
	snprintf(expected, sizeof(expected), value == RLIM_INFINITY ? "unlimited" : "%" PRIu64,
		 value);
	if (strncmp(*text, expected, strlen(expected)))
		return false;
	*text += strlen(expected);
	return true;
}

/* A heading, then every limit in the order of its number: name, soft, hard, unit. */
static void check_limits(const struct kernel_task *task)
{
	enum { NAME_COLUMN = 26 };
	const char *text = read_file(task->pid, "limits");

	for (int i = 0; i < KERNEL_LIMITS; i++) {
		text = strchr(text, '\n');
		if (!CHECK(text && strlen(text) > NAME_COLUMN))
			return;
		text += 1 + NAME_COLUMN;
		CHECK(is_limit(&text, task->limits[i].soft));
		CHECK(is_limit(&text, task->limits[i].hard));
	}
}

static void check_task(const struct kernel_task *task)
{
	const char *text = read_file(task->pid, "status");

	check_ids(task, text);
	check_credentials(task, text);
	CHECK(task->umask == number(text, "Umask", 0, 8));
	CHECK(task->signals_pending == number(text, "SigPnd", 0, 16));
	CHECK(task->signals_shared_pending == number(text, "ShdPnd", 0, 16));
	CHECK((task->ptrace ? task->tracer : 0) == (int)number(text, "TracerPid", 0, 10));
	CHECK((task->groups > 0) == (number(text, "Groups", 0, 10) > 0));
	check_limits(task);
	CHECK((int16_t)task->oom_score_adj == atoi(read_file(task->pid, "oom_score_adj")));
	CHECK((task->mm_flags >> 2 & 0x1ff) ==
	      strtoull(read_file(task->pid, "coredump_filter"), NULL, 16));
	CHECK(task->timer_slack == strtoull(read_file(task->pid, "timerslack_ns"), NULL, 10));
	text = read_file(task->pid, "comm");
	CHECK(!strncmp(task->comm, text, strlen(task->comm)));
}

static bool is_ours(void *context, const struct kernel_task *task)
{
	pid_t init = *(pid_t *)context;

	return task->pid == getpid() || task->pid == init || task->ppid == init;
}

static struct cr_error *count_one(void *context, uint64_t session_keyring)
{
	*(unsigned int *)context += session_keyring != 0;
	return NULL;
}

/* A reader of one pid namespace: init and its child, not we. */
static void check_namespace(const struct btf *btf, struct pool *pool,
			    const struct kernel_task *init)
{
	_cleanup_kernel_reader_ struct kernel_reader *reader = NULL;
	const struct kernel_task *task;
	unsigned int keyrings = 0, inside = 0;
	struct list list = {0};

	if (!CHECK_SUCCESS(kernel_reader_open(btf, &init->id, &reader)))
		return;
	CHECK_SUCCESS(kernel_reader_tasks(reader, pool, NULL, NULL, &list));
	task = list.items;
	for (size_t i = 0; i < list.count; i++) {
		inside += task[i].id.namespace == init->id.namespace;
		/* less deep: what its number's place held before may be taken for its namespace */
		CHECK(task[i].id.namespace == init->id.namespace || task[i].ptrace ||
		      task[i].id.depth < init->id.depth);
	}
	CHECK(inside == 2);
	CHECK_SUCCESS(kernel_reader_strangers(reader, count_one, &keyrings));
}

int main(void)
{
	_cleanup_kernel_reader_ struct kernel_reader *reader = NULL;
	_cleanup_pool_ struct pool *pool = NULL;
	_cleanup_btf_ struct btf *btf = NULL;
	struct child child = child_start(live_apart);
	pid_t init = child.facts->threads[0].tid;
	const struct kernel_task *task;
	struct list list = {0};
	bool changed = false;

	if (!CHECK_SUCCESS(types_open(&btf)) ||
	    !CHECK_SUCCESS(kernel_reader_open(btf, NULL, &reader)) ||
	    !CHECK_SUCCESS(pool_create(0, &pool)))
		return checks_done();
	for (int i = 0; i < 2000 && !changed; i++) {
		usleep(1000);
		CHECK_SUCCESS(kernel_reader_tasks(reader, pool, is_ours, &init, &list));
		task = list.items;
		for (size_t k = 0; k < list.count; k++)
			changed |= task[k].signals_shared_pending != 0;
	}
	CHECK(changed && list.count == 3);
	for (size_t i = 0; i < list.count; i++)
		check_task(&task[i]);
	for (size_t i = 0; i < list.count; i++) {
		if (task[i].pid != getpid())
			CHECK(task[i].id.number == (task[i].pid == init ? 1 : 2));
		if (task[i].pid == init)
			check_namespace(btf, pool, &task[i]);
		if (task[i].pid != getpid() && task[i].pid != init)
			CHECK(task[i].groups == 2 && task[i].session_id.number == 2 &&
			      task[i].cap_ambient == 1);
	}
	kill(init, SIGKILL);
	child_end(&child);
	return checks_done();
}
