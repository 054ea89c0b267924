/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Leases that are being broken: who waits goes on waiting, for exactly what was left, and the holder
 * is not signalled again.
 */
#include "lease_clock.h"
#include "told.h"

enum {
	MOST = 4,	       /* breakers of one file */
	TOLERANCE = 100000000, /* of a machine that does a lot besides */
};

enum way { READ, WRITE, TRUNCATE, OPEN_TRUNCATE };

/* One file, its lease, who breaks it, and what is to be seen then. */
struct scene {
	const char *name;
	int flags, type;
	struct {
		enum way way;
		bool nonblock;
	} breakers[MOST]; /* the first at once, the others 300 ms later */
	int breakers_count;
	int target;	   /* F_GETLEASE meanwhile */
	bool new_reader;   /* may somebody new read meanwhile? */
	int answer;	   /* what the holder does after the restart: F_SETLEASE; -1: nothing */
	bool refused;	   /* which the kernel refuses */
	bool left_pending; /* the signals are not taken before the checkpoint */
};

/* clang-format off */
static const struct scene scenes[] = {
	{.name = "w-read", .flags = O_RDWR, .type = F_WRLCK, .target = F_RDLCK,
	 .breakers = {{.way = READ}}, .breakers_count = 1, .answer = -1},
	{.name = "w-write", .flags = O_RDWR, .type = F_WRLCK, .target = F_UNLCK,
	 .breakers = {{.way = WRITE}}, .breakers_count = 1, .answer = -1, .left_pending = true},
	{.name = "r-write", .flags = O_RDONLY, .type = F_RDLCK, .target = F_UNLCK,
	 .breakers = {{.way = WRITE}}, .breakers_count = 1, .answer = -1, .new_reader = true},
	{.name = "odd-write", .flags = O_RDONLY, .type = F_WRLCK, .target = F_UNLCK,
	 .breakers = {{.way = WRITE}}, .breakers_count = 1, .answer = -1},
	{.name = "both", .flags = O_RDWR, .type = F_WRLCK, .target = F_UNLCK,
	 .breakers = {{.way = READ}, {.way = WRITE}}, .breakers_count = 2, .answer = -1},
	{.name = "two", .flags = O_RDWR, .type = F_WRLCK, .target = F_UNLCK,
	 .breakers = {{.way = WRITE}, {.way = READ}}, .breakers_count = 2, .answer = -1},
	{.name = "nobody", .flags = O_RDWR, .type = F_WRLCK, .target = F_RDLCK,
	 .breakers = {{.way = READ, .nonblock = true}}, .breakers_count = 1, .answer = -1},
	{.name = "truncate", .flags = O_RDWR, .type = F_WRLCK, .target = F_UNLCK,
	 .breakers = {{.way = TRUNCATE}}, .breakers_count = 1, .answer = -1},
	{.name = "o_trunc", .flags = O_RDWR, .type = F_WRLCK, .target = F_UNLCK,
	 .breakers = {{.way = OPEN_TRUNCATE}}, .breakers_count = 1, .answer = -1,
	 .left_pending = true},
	{.name = "given-back", .flags = O_RDWR, .type = F_WRLCK, .target = F_UNLCK,
	 .breakers = {{.way = WRITE}}, .breakers_count = 1, .answer = F_UNLCK},
	{.name = "taken-down", .flags = O_RDONLY, .type = F_WRLCK, .target = F_RDLCK,
	 .breakers = {{.way = READ}}, .breakers_count = 1, .answer = F_RDLCK},
	{.name = "not-down", .flags = O_RDWR, .type = F_WRLCK, .target = F_RDLCK,
	 .breakers = {{.way = READ}}, .breakers_count = 1, .answer = F_RDLCK, .refused = true},
};
/* clang-format on */

enum { SCENES = sizeof(scenes) / sizeof(scenes[0]), SIZE = 1000 };

struct board {
	struct lease_clock clock;
	struct {
		uint32_t begun;
		uint64_t at, back; /* alive when the break began, and when the breaker was let in */
		bool entered;
	} breakers[SCENES][MOST];
};

static struct board *board;
static int fds[SCENES], signal_number;
static pid_t pids[SCENES][MOST];
static uint32_t told[SCENES];
static uint64_t whole;
static char path[512];

static const char *name(int scene)
{
	snprintf(path, sizeof(path), "%s.%s", victim_path, scenes[scene].name);
	return path;
}

/* ---- breakers ---- */

static int go(const char *file, enum way way, int flags)
{
	switch (way) {
	case READ: return open(file, O_RDONLY | flags);
	case WRITE: return open(file, O_WRONLY | flags);
	case TRUNCATE: return truncate(file, 0);
	case OPEN_TRUNCATE:
	default: return open(file, O_WRONLY | O_CREAT | O_TRUNC | flags, 0666);
	}
}

struct role {
	int scene, number;
};

static void breaker(void *argument)
{
	const struct role *role = argument;
	const struct scene *scene = &scenes[role->scene];
	__typeof__(board->breakers[0][0]) *mine = &board->breakers[role->scene][role->number];
	bool nonblock = scene->breakers[role->number].nonblock;
	int got;

	mine->at = board->clock.alive;
	victim_arrive(&mine->begun);
	got = go(name(role->scene), scene->breakers[role->number].way, nonblock ? O_NONBLOCK : 0);
	if (nonblock)
		check(got < 0 && errno == EWOULDBLOCK, "%s: opened", scene->name);
	else
		check(got >= 0, "%s: breaker %d: %s", scene->name, role->number, strerror(errno));
	mine->back = board->clock.alive;
	mine->entered = true;
	while (!nonblock && !__atomic_load_n(&board->clock.stop, __ATOMIC_SEQ_CST))
		victim_nap(5);
}

static void until_blocked(pid_t pid)
{
	char file[64], text[512];

	snprintf(file, sizeof(file), "/proc/%d/stat", pid);
	do {
		victim_nap(1);
		victim_read(file, text, sizeof(text));
	} while (!strstr(text, ") S"));
}

static void start(int scene, int number)
{
	static struct role roles[SCENES][MOST];
	struct role *role = &roles[scene][number];

	*role = (struct role){scene, number};
	pids[scene][number] = victim_child(breaker, role);
	victim_meet(&board->breakers[scene][number].begun, 1);
	if (!scenes[scene].breakers[number].nonblock)
		until_blocked(pids[scene][number]);
}

/* ---- the holder ---- */

static void build(int scene)
{
	static char bytes[SIZE];
	int fd = must(open(name(scene), O_RDWR | O_CREAT, 0666));

	check(write(fd, bytes, SIZE) == SIZE, "write");
	close(fd);
	fds[scene] = must(open(name(scene), scenes[scene].flags));
	must(fcntl(fds[scene], F_SETSIG, signal_number + scenes[scene].left_pending));
	must(fcntl(fds[scene], F_SETLEASE, scenes[scene].type));
}

/* All signals that are here, counted by the descriptor they tell. */
static void take_signals(int number)
{
	struct timespec none = {0};
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, number);
	while (sigtimedwait(&set, &info, &none) > 0) {
		int scene = 0;

		while (scene < SCENES && fds[scene] != info.si_fd)
			scene++;
		check(scene < SCENES, "a signal about descriptor %d", info.si_fd);
		check(info.si_code == POLL_MSG, "si_code %d", info.si_code);
		told[scene]++;
	}
	check(errno == EAGAIN, "sigtimedwait: %s", strerror(errno));
}

static uint64_t end_of(int scene, int number)
{
	return board->breakers[scene][number].at + whole;
}

static void check_meanwhile(int i)
{
	const struct scene *scene = &scenes[i];
	int fd, lease = fcntl(fds[i], F_GETLEASE);
	struct stat stat;

	/* a machine that took its time: what follows is over */
	if (board->clock.alive + SECOND / 4 > end_of(i, 0)) {
		victim_say("slow: %s is over before it was looked at", scene->name);
		return;
	}
	check(lease == scene->target, "%s: lease %d meanwhile", scene->name, lease);
	fd = open(name(i), O_RDONLY | O_NONBLOCK);
	check((fd >= 0) == scene->new_reader, "%s: a new reader is %s", scene->name,
	      fd >= 0 ? "let in" : "kept out");
	if (fd >= 0)
		close(fd);
	must(fstat(fds[i], &stat));
	check(stat.st_size == SIZE, "%s: %ld bytes", scene->name, (long)stat.st_size);
	for (int n = 0; n < scene->breakers_count; n++)
		check(scene->breakers[n].nonblock || !board->breakers[i][n].entered,
		      "%s: breaker %d was let in", scene->name, n);
	if (scene->answer < 0)
		return;
	check((fcntl(fds[i], F_SETLEASE, scene->answer) < 0) == scene->refused,
	      "%s: the holder's answer: %s", scene->name, strerror(errno));
	if (!scene->refused) {
		for (int n = 0; n < 100 && !board->breakers[i][0].entered; n++)
			victim_nap(5);
		check(board->breakers[i][0].entered, "%s: not let in at once", scene->name);
		board->breakers[i][0].back = end_of(i, 0);
	}
}

/*
 * Whose time is up loses the lease when somebody asks for it. Who waits asks late: the longer the
 * kernel's timers are, the coarser they are, up to an eighth.
 */
static void look_at_clocks(void)
{
	victim_nap(2);
	for (int i = 0; i < SCENES; i++)
		must(fcntl(fds[i], F_GETLEASE));
}

static void check_end(int i)
{
	const struct scene *scene = &scenes[i];
	uint64_t expected_end;
	struct stat stat;

	for (int n = 0; n < scene->breakers_count; n++) {
		__typeof__(board->breakers[0][0]) *one = &board->breakers[i][n];
		int64_t error;

		if (scene->breakers[n].nonblock) {
			victim_reap(pids[i][n]);
			continue;
		}
		while (!one->entered)
			look_at_clocks();
		/* a reader that joins one who wants to write waits for them */
		expected_end = scene->breakers[0].way == WRITE ? end_of(i, 0) : end_of(i, n);
		error = (int64_t)(one->back - expected_end);
		check(error > -TOLERANCE && error < TOLERANCE,
		      "%s: breaker %d came %ld ms too late", scene->name, n,
		      (long)(error / 1000000));
	}
	must(fstat(fds[i], &stat));
	if (scene->breakers[0].way >= TRUNCATE)
		check(stat.st_size == 0, "%s: %ld bytes at the end", scene->name,
		      (long)stat.st_size);
	/* the kernel looks at its clock when it is asked */
	if (scene->breakers[0].nonblock) {
		while (board->clock.alive < end_of(i, 0) + TOLERANCE)
			victim_nap(5);
		check(fcntl(fds[i], F_GETLEASE) == F_RDLCK, "%s: lease %d at the end", scene->name,
		      fcntl(fds[i], F_GETLEASE));
		check(!(fcntl(fds[i], F_SETLEASE, F_UNLCK)), "%s: no lease at the end",
		      scene->name);
	}
}

/* A reader first and a writer later break a lease twice; who joins breaks nothing. */
static uint32_t signals_of(int scene)
{
	const struct scene *one = &scenes[scene];

	return one->breakers_count == 2 && one->breakers[0].way == READ ? 2 : 1;
}

static void break_all(void)
{
	for (int i = 0; i < SCENES; i++)
		start(i, 0);
	victim_nap(300);
	for (int i = 0; i < SCENES; i++) {
		for (int n = 1; n < scenes[i].breakers_count; n++)
			start(i, n);
	}
}

int main(int argc, char **argv)
{
	pid_t clock;

	victim_init(argc, argv);
	board = victim_shared(sizeof(*board));
	signal_number = SIGRTMIN + 4;
	hold_signal(signal_number);
	hold_signal(signal_number + 1);
	whole = lease_break_time();
	clock = victim_child(lease_clock_process, &board->clock);
	for (int i = 0; i < SCENES; i++)
		build(i);
	break_all();
	take_signals(signal_number);
	victim_ready();
	victim_wait();
	for (int i = 0; i < SCENES; i++)
		check_meanwhile(i);
	for (int i = 0; i < SCENES; i++)
		check_end(i);
	take_signals(signal_number);
	take_signals(signal_number + 1);
	for (int i = 0; i < SCENES; i++)
		check(told[i] == signals_of(i), "%s: %u signals", scenes[i].name, told[i]);
	__atomic_store_n(&board->clock.stop, 1, __ATOMIC_SEQ_CST);
	victim_reap(clock);
	victim_ok();
	return 0;
}
