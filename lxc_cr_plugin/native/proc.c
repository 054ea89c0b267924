/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "proc.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/resource.h>

#include "cleanup.h"

static struct cr_error *proc_failed(const char *name)
{
	if (errno == ENOENT || errno == ESRCH)
		return error_new(CR_GONE, "Failed to read /proc/PID/%s: the task is gone", name);
	return error_sys("Failed to read /proc/PID/%s", name);
}

struct cr_error *proc_open(pid_t pid, pid_t tid, int *ret)
{
	char path[64];

	snprintf(path, sizeof(path), pid == tid ? "/proc/%d" : "/proc/%d/task/%d", pid, tid);
	*ret = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	return *ret < 0 ? proc_failed("") : NULL;
}

/* Grow @buffer so that at least one more page fits; a proc file does not tell its size. */
static struct cr_error *read_all(int fd, const char *name, struct pool *pool, char **ret,
				 size_t *len)
{
	size_t room = 4096, used = 0;
	char *buffer = pool_alloc(pool, room);

	for (;;) {
		ssize_t got;

		if (!buffer)
			return error_nomem();
		got = read(fd, buffer + used, room - used - 1);
		if (got < 0)
			return proc_failed(name);
		if (got == 0)
			break;
		used += (size_t)got;
		if (room - used < 2048) {
			char *larger = pool_alloc(pool, room * 4);

			if (larger)
				memcpy(larger, buffer, used);
			buffer = larger;
			room *= 4;
		}
	}
	buffer[used] = '\0';
	*ret = buffer;
	if (len)
		*len = used;
	return NULL;
}

struct cr_error *proc_read(int dir, const char *name, struct pool *pool, char **ret, size_t *len)
{
	_cleanup_close_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return proc_failed(name);
	return read_all(fd, name, pool, ret, len);
}

struct cr_error *proc_read_of(pid_t tid, const char *name, struct pool *pool, char **ret)
{
	_cleanup_close_ int dir = -1;

	TRY(proc_open(tid, tid, &dir));
	return proc_read(dir, name, pool, ret, NULL);
}

struct cr_error *proc_boot_id(struct pool *pool, struct bytes *ret)
{
	char *text;

	TRY(proc_read(AT_FDCWD, "/proc/sys/kernel/random/boot_id", pool, &text, NULL));
	ret->data = (uint8_t *)text;
	ret->len = strcspn(text, "\n");
	text[ret->len] = 0;
	return NULL;
}

struct cr_error *proc_link(int dir, const char *name, struct pool *pool, struct bytes *ret)
{
	char target[PATH_MAX];
	ssize_t len = readlinkat(dir, name, target, sizeof(target));

	if (len < 0)
		return proc_failed(name);
	if ((size_t)len == sizeof(target))
		return error_new(CR_UNSUPPORTED, "Path behind /proc/PID/%s is too long", name);
	ret->data = (uint8_t *)pool_strndup(pool, target, (size_t)len);
	ret->len = (size_t)len;
	return ret->data ? NULL : error_nomem();
}

/* Into a buffer of the caller's: nothing is allocated, so it may run thousands of times. */
static struct cr_error *read_small(int dir, const char *name, char *buffer, size_t size)
{
	_cleanup_close_ int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
	ssize_t got;

	if (fd < 0)
		return proc_failed(name);
	got = read(fd, buffer, size - 1);
	if (got <= 0)
		return proc_failed(name);
	buffer[got] = '\0';
	return NULL;
}

struct cr_error *proc_stat(int dir, struct proc_stat *ret)
{
	char text[2048], *open_paren, *close_paren;
	uint64_t field[53] = {0};
	size_t len;
	int n = 4;

	TRY(read_small(dir, "stat", text, sizeof(text)));
	/* comm may hold anything, parentheses too: it ends at the last one */
	open_paren = strchr(text, '(');
	close_paren = strrchr(text, ')');
	if (!open_paren || !close_paren || close_paren < open_paren)
		return error_new(CR_INTERNAL, "Failed to parse /proc/PID/stat");
	len = (size_t)(close_paren - open_paren - 1);
	if (len > sizeof(ret->comm) - 1)
		len = sizeof(ret->comm) - 1;
	memcpy(ret->comm, open_paren + 1, len);
	ret->comm[len] = '\0';
	ret->state = close_paren[2];
	for (char *p = close_paren + 3; n < 53 && *p == ' '; n++)
		field[n] = strtoull(p, &p, 10);
	if (n < 52)
		return error_new(CR_INTERNAL, "Failed to parse /proc/PID/stat: %d fields", n);
	ret->ppid = (int)field[4];
	ret->pgrp = (int)field[5];
	ret->session = (int)field[6];
	ret->tty_nr = (int)field[7];
	ret->tpgid = (int)field[8];
	ret->start_time = field[22];
	ret->start_code = field[26];
	ret->end_code = field[27];
	ret->start_stack = field[28];
	ret->exit_signal = (int)field[38];
	ret->start_data = field[45];
	ret->end_data = field[46];
	ret->start_brk = field[47];
	ret->arg_start = field[48];
	ret->arg_end = field[49];
	ret->env_start = field[50];
	ret->env_end = field[51];
	return NULL;
}

const char *proc_name(pid_t pid, struct pool *pool)
{
	struct proc_stat stat = {.comm = "?"};
	_cleanup_close_ int proc = -1;
	_cleanup_error_ struct cr_error *error = proc_open(pid, pid, &proc);
	char text[80];
	const char *name;

	if (!error)
		error = proc_stat(proc, &stat);
	snprintf(text, sizeof(text), "process %d of the host (%s)", pid, stat.comm);
	name = pool_strndup(pool, text, sizeof(text));
	return name ? name : "another process";
}

/* The text behind "KEY:" at the start of a line. */
static const char *status_value(const char *text, const char *key)
{
	size_t len = strlen(key);

	for (const char *line = text; line; line = strchr(line, '\n')) {
		if (*line == '\n')
			line++;
		if (!strncmp(line, key, len) && line[len] == ':')
			return line + len + 1;
	}
	return NULL;
}

static uint64_t status_number(const char *text, const char *key, int base)
{
	const char *value = status_value(text, key);

	return value ? strtoull(value, NULL, base) : 0;
}

/* The last number of a line such as "NSpid: 300 12 1". */
static int status_innermost(const char *text, const char *key, unsigned int *levels)
{
	const char *value = status_value(text, key);
	int last = 0;

	*levels = 0;
	while (value && (*value == '\t' || *value == ' ')) {
		char *end;
		long number = strtol(value, &end, 10);

		if (end == value)
			break;
		last = (int)number;
		value = end;
		++*levels;
	}
	return last;
}

static void status_ids(const char *text, const char *key, uint32_t ids[4])
{
	const char *value = status_value(text, key);

	for (int i = 0; value && i < 4; i++) {
		char *end;

		ids[i] = (uint32_t)strtoul(value, &end, 10);
		value = end;
	}
}

static struct cr_error *status_groups(const char *text, struct pool *pool, struct list *groups)
{
	const char *value = status_value(text, "Groups");

	for (;;) {
		char *end;
		unsigned long number;
		uint32_t *group;

		while (value && (*value == ' ' || *value == '\t'))
			value++;
		if (!value || *value == '\n')
			return NULL;
		number = strtoul(value, &end, 10);
		if (end == value)
			return NULL;
		group = list_append(pool, groups, sizeof(*group));
		if (!group)
			return error_nomem();
		*group = (uint32_t)number;
		value = end;
	}
}

struct cr_error *proc_status(int dir, struct pool *pool, struct proc_status *ret)
{
	unsigned int ignored;
	char *text;

	TRY(proc_read(dir, "status", pool, &text, NULL));
	memset(ret, 0, sizeof(*ret));
	ret->umask = (uint32_t)status_number(text, "Umask", 8);
	ret->tgid = (int)status_number(text, "Tgid", 10);
	ret->tracer = (int)status_number(text, "TracerPid", 10);
	ret->ns_tgid = status_innermost(text, "NStgid", &ignored);
	ret->ns_pid = status_innermost(text, "NSpid", &ret->pid_levels);
	ret->ns_pgid = status_innermost(text, "NSpgid", &ignored);
	ret->ns_sid = status_innermost(text, "NSsid", &ignored);
	status_ids(text, "Uid", ret->uid);
	status_ids(text, "Gid", ret->gid);
	TRY(status_groups(text, pool, &ret->groups));
	ret->cap_inheritable = status_number(text, "CapInh", 16);
	ret->cap_permitted = status_number(text, "CapPrm", 16);
	ret->cap_effective = status_number(text, "CapEff", 16);
	ret->cap_bounding = status_number(text, "CapBnd", 16);
	ret->cap_ambient = status_number(text, "CapAmb", 16);
	ret->no_new_privs = (uint32_t)status_number(text, "NoNewPrivs", 10);
	ret->seccomp = (uint32_t)status_number(text, "Seccomp", 10);
	ret->seccomp_filters = (uint32_t)status_number(text, "Seccomp_filters", 10);
	ret->signals_pending = status_number(text, "SigPnd", 16);
	ret->signals_shared_pending = status_number(text, "ShdPnd", 16);
	ret->thp_disabled =
		status_value(text, "THP_enabled") && !status_number(text, "THP_enabled", 10);
	ret->rss_anon = status_number(text, "RssAnon", 10) * 1024;
	return NULL;
}

struct cr_error *proc_handler_is_due(int dir, bool *ret)
{
	char text[4096];
	uint64_t pending;

	TRY(read_small(dir, "status", text, sizeof(text)));
	pending = status_number(text, "SigPnd", 16) | status_number(text, "ShdPnd", 16);
	*ret = pending & ~status_number(text, "SigBlk", 16) & status_number(text, "SigCgt", 16);
	return NULL;
}

struct cr_error *proc_anonymous_share(int dir, uint64_t *ret)
{
	char text[4096];

	TRY(read_small(dir, "smaps_rollup", text, sizeof(text)));
	if (!status_value(text, "Pss_Anon"))
		return error_new(CR_HOST, "This kernel does not tell shares of anonymous memory");
	*ret = status_number(text, "Pss_Anon", 10) * 1024;
	return NULL;
}

/* /proc/PID/maps writes a newline in a path as \012, and nothing else is escaped. */
static size_t unescape_newlines(char *path, size_t len)
{
	size_t to = 0;

	for (size_t from = 0; from < len; from++) {
		if (len - from >= 4 && !memcmp(path + from, "\\012", 4)) {
			path[to++] = '\n';
			from += 3;
		} else {
			path[to++] = path[from];
		}
	}
	path[to] = '\0';
	return to;
}

static struct cr_error *parse_map(char *line, size_t len, struct proc_map *map)
{
	char perms[5];
	int consumed = 0;

	line[len] = '\0';
	if (sscanf(line,
		   "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %" SCNx32 ":%" SCNx32 " %" SCNu64 "%n",
		   &map->start, &map->end, perms, &map->offset, &map->major, &map->minor,
		   &map->inode, &consumed) != 7)
		return error_new(CR_INTERNAL, "Failed to parse /proc/PID/maps: '%s'", line);
	map->read = perms[0] == 'r';
	map->write = perms[1] == 'w';
	map->execute = perms[2] == 'x';
	map->shared = perms[3] == 's';
	while (line[consumed] == ' ')
		consumed++;
	map->name.data = (uint8_t *)line + consumed;
	map->name.len = unescape_newlines(line + consumed, len - (size_t)consumed);
	return NULL;
}

/* Shared memory with a name (PR_SET_VMA_ANON_NAME) shows that and not its path. A path never begins
 * like this. */
static struct cr_error *find_path(int dir, struct pool *pool, struct proc_map *map)
{
	static const char named[] = "[anon_shmem:";
	char link[64];

	if (strncmp((char *)map->name.data, named, strlen(named)))
		return NULL;
	snprintf(link, sizeof(link), "map_files/%" PRIx64 "-%" PRIx64, map->start, map->end);
	return proc_link(dir, link, pool, &map->name);
}

struct cr_error *proc_maps(int dir, struct pool *pool, struct list *ret)
{
	size_t len;
	char *text, *line;

	TRY(proc_read(dir, "maps", pool, &text, &len));
	for (line = text; line < text + len;) {
		char *end = memchr(line, '\n', (size_t)(text + len - line));
		struct proc_map *map = list_append(pool, ret, sizeof(*map));

		if (!map)
			return error_nomem();
		if (!end)
			return error_new(CR_INTERNAL, "Failed to parse /proc/PID/maps: no newline");
		TRY(parse_map(line, (size_t)(end - line), map));
		TRY(find_path(dir, pool, map));
		line = end + 1;
	}
	return NULL;
}

void proc_raise_own_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int compare_ints(const void *a, const void *b)
{
	int x = *(const int *)a, y = *(const int *)b;

	return (x > y) - (x < y);
}

struct cr_error *proc_numbers(int dir, const char *name, struct pool *pool, struct list *ret)
{
	_cleanup_closedir_ DIR *listing = NULL;
	struct dirent *entry;
	int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd < 0)
		return proc_failed(name);
	listing = fdopendir(fd);
	if (!listing) {
		close(fd);
		return error_sys("Failed to list /proc/PID/%s", name);
	}
	while (errno = 0, (entry = readdir(listing))) {
		int *number;

		if (entry->d_name[0] < '0' || entry->d_name[0] > '9')
			continue;
		number = list_append(pool, ret, sizeof(*number));
		if (!number)
			return error_nomem();
		*number = atoi(entry->d_name);
	}
	if (errno)
		return proc_failed(name);
	if (ret->count)
		qsort(ret->items, ret->count, sizeof(int), compare_ints);
	return NULL;
}
