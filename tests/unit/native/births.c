/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The plan of a restart's births against a small model of what the kernel does: random trees come
 * about by clone(2), unshare(2), execve(2), setsid(2) and exits, are planned, and the plan's steps,
 * carried out by the same model, must make the same tree.
 *
 *	births SEED TREES STEPS		random trees
 *	births -c COUNT			how long the plan of so many processes takes, ns each
 */
#include <time.h>

#include "births_model.h"

/* ---- random trees ---- */

static uint64_t state;

static uint32_t chance(uint32_t most)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (uint32_t)(state * 0x2545f4914f6cdd1dULL >> 33) % most;
}

static struct task *random_task(struct world *world)
{
	struct task *task;

	do
		task = &world->tasks[chance((uint32_t)world->count)];
	while (!task->lives);
	return task;
}

static int count_processes(const struct world *world)
{
	int count = 0;

	for (int i = 1; i < world->count; i++)
		count += is_leader(&world->tasks[i]) && world->tasks[i].threads;
	return count;
}

static void random_clone(struct world *world, struct task *maker)
{
	static const int signals[] = {0, SIGUSR1, SIGUSR2};
	uint64_t flags = 0;
	struct task *child;

	for (unsigned int sort = 0; sort < SHARE_SORTS; sort++)
		flags |= chance(100) < 55 ? 1u << sort : 0;
	if (!(flags & 1u << SHARE_MEMORY) || chance(3))
		flags &= ~(1ull << SHARE_SIGHAND);
	if (chance(6) == 0) {
		child = do_clone_thread(world, maker, flags | (ALL & ~UNSHARED));
		tell(" thread of %d", child->leader->number);
		return;
	}
	child = do_clone(world, maker, flags);
	if (chance(8) == 0 && maker->leader->parent) {
		child->parent = maker->leader->parent;
		child->exit_signal = maker->leader->exit_signal;
		tell(" of %d", child->parent->number);
	} else if (chance(6) == 0) {
		child->exit_signal = signals[chance(3)];
		tell(" signal %d", child->exit_signal);
	}
}

static void random_exit(struct world *world, struct task *task)
{
	if (task->leader->threads > 1 && chance(2) && (task->leader->parent || !is_leader(task))) {
		task->lives = false;
		task->leader->threads--;
		tell(" %d:exit of a thread", task->number);
	} else if (task->leader->parent && count_processes(world) > 4) {
		do_exit(world, task->leader, chance(2));
	}
}

static void random_step(struct world *world)
{
	struct task *task = random_task(world), *leader = task->leader;
	uint32_t dice = chance(100);

	if (dice < 45)
		random_clone(world, task);
	else if (dice < 60)
		do_unshare(world, task, chance(2) ? 1u << SHARE_FS : 1u << SHARE_FILES);
	else if (dice < 63 && leader->threads == 1)
		do_unshare(world, task, 1u << SHARE_UNDO);
	else if (dice < 70 && leader->threads == 1 && is_leader(task))
		do_exec(world, task);
	else if (dice < 82)
		random_exit(world, task);
	else if (dice < 90)
		do_setsid(leader);
	else if (dice < 94)
		do_set_reaper(leader, chance(2));
}

static void random_world(struct world *world, int steps)
{
	begin_world(world);
	do_clone(world, &world->tasks[0], 0);
	for (int i = 0; i < steps && world->count < MOST; i++)
		random_step(world);
}

/* ---- the plan, carried out ---- */

struct restart {
	struct world world;
	struct task *made[MOST + 1]; /* by number */
};

static struct task *task_of(const struct restart *restart, const struct thread *thread)
{
	struct task *task = restart->made[thread->tid];

	check(task, "task %d does not stand yet", thread->tid);
	return task;
}

static bool is_above(const struct task *ancestor, const struct task *task)
{
	while (task && task != ancestor)
		task = task->parent;
	return task != NULL;
}

static void check_way(const struct birth_step *step, const struct task *maker,
		      const struct task *parent)
{
	const struct process *process = step->thread->process;

	switch (step->way) {
	case BIRTH_CHILD: check(maker->leader == parent, "%d: not the parent", process->pid); break;
	case BIRTH_SIBLING:
		check(maker->leader->parent == parent &&
			      maker->leader->exit_signal == process->exit_signal,
		      "%d: not a sibling", process->pid);
		break;
	case BIRTH_ADOPTED:
		check(is_above(parent, maker->leader), "%d: not below its parent", process->pid);
		check(process->exit_signal == SIGCHLD, "%d: exit signal", process->pid);
		break;
	case BIRTH_THREAD: break;
	}
}

static void make(struct restart *restart, const struct birth_step *step)
{
	struct world *world = &restart->world;
	struct task *maker = task_of(restart, step->maker), *child;
	struct process *process = step->thread->process;

	check(!restart->made[step->thread->tid], "%d stands already", step->thread->tid);
	if (step->way == BIRTH_THREAD) {
		check(maker->leader == restart->made[process->pid], "a thread of another process");
		child = do_clone_thread(world, maker, step->flags | (ALL & ~UNSHARED));
	} else {
		struct task *parent = task_of(restart, process_leader(process->parent));

		check_way(step, maker, parent);
		child = do_clone(world, maker, step->flags);
		child->parent = parent;
		child->exit_signal = process->exit_signal;
		child->number = process->pid;
		if (step->session)
			child->session = step->session;
		if (!process->parent->parent && process_state(process, &zombie_kind))
			check(0, "a zombie of init");
	}
	child->process = process;
	child->thread = step->thread;
	restart->made[step->thread->tid] = child;
	/* where the first thread is dead */
	if (thread_is_leader(step->thread))
		restart->made[process->pid] = child;
}

static void execute(struct restart *restart, struct task *task)
{
	check(is_leader(task) && task->threads == 1 && task->exit_signal == SIGCHLD,
	      "%d cannot execute", task->number);
	do_exec(&restart->world, task);
	task->shows = task->process;
}

static void build(struct restart *restart, const struct birth_step *step, struct task *task)
{
	const struct process *of = step->of ? step->of : step->thread->process;

	for (int i = 0; i < restart->world.count; i++) {
		struct task *other = &restart->world.tasks[i];

		if (other->has[SHARE_MEMORY] != task->has[SHARE_MEMORY] || other == task)
			continue;
		/* who has it already is not touched by memory_restore() */
		if (other->shows && other->shows->memory == of->memory)
			continue;
		check(is_above(task, other) || !other->process, "memory of %d is replaced",
		      other->number);
	}
	for (int i = 0; i < restart->world.count; i++) {
		struct task *other = &restart->world.tasks[i];

		if (other->has[SHARE_MEMORY] == task->has[SHARE_MEMORY])
			other->shows = of;
	}
}

static void take_step(struct restart *restart, const struct birth_step *step)
{
	static const char *const names[] = {"make", "build", "lead", "give up", "execute"};
	struct task *task = step->sort == STEP_MAKE ? NULL : task_of(restart, step->thread);

	tell("\n%s %d:", names[step->sort], step->thread->tid);
	switch (step->sort) {
	case STEP_MAKE: make(restart, step); break;
	case STEP_BUILD:
		if (!process_state(step->thread->process, &zombie_kind))
			build(restart, step, task);
		break;
	case STEP_LEAD: task->leader->session = step->thread->process->number; break;
	case STEP_GIVE_UP: do_unshare(&restart->world, task, step->flags); break;
	case STEP_EXECUTE: execute(restart, task); break;
	}
}

/* Threads that are like their process are made by another function, at the end. */
static const struct task *stands_for(const struct restart *restart, const struct task *task)
{
	const struct task *made = restart->made[task->number];

	return made ? made : restart->made[process_leader(task->thread->process)->tid];
}

static void compare(const struct world *world, const struct restart *restart)
{
	for (int i = 0; i < world->count; i++) {
		const struct task *a = &world->tasks[i], *b, *other;

		if (!a->thread)
			continue;
		b = stands_for(restart, a);
		check(b, "%d is missing", a->number);
		check(a->leader->session == b->leader->session, "%d: session %d, was %d", a->number,
		      b->leader->session, a->leader->session);
		check(!a->lives || b->shows->memory == a->leader->process->memory,
		      "%d: memory of %d", a->number, b->shows->pid);
		for (int j = 0; j < i; j++) {
			other = &world->tasks[j];
			for (unsigned int sort = 0; a->lives && other->lives && sort < SHARE_SORTS;
			     sort++)
				check((a->has[sort] == other->has[sort]) ==
					      (b->has[sort] ==
					       stands_for(restart, other)->has[sort]),
				      "%d and %d: %s", a->number, other->number,
				      sharing_name(sort));
		}
	}
}

/* false: it is refused. */
static bool plan(struct image *image)
{
	struct cr_error *error = births_plan(image);

	if (error)
		tell("\n%s", error->message);
	cr_error_free(error);
	return !error;
}

/* Pages that were shared copy-on-write: of how many processes, and of how many they are again. */
struct kin {
	int before, after;
};

static void count_kin(const struct image *image, struct kin *kin)
{
	for_each (struct process *, process, &image->processes) {
		if (!births_origin(process) ||
		    process_leader(process)->first[SHARE_MEMORY]->process != process)
			continue;
		kin->before++;
		kin->after += memory_is_kin(process->memory, process->mother->memory);
	}
}

static void verify(struct image *image, const struct world *world, struct kin *kin)
{
	struct restart *restart = calloc(1, sizeof(*restart));
	const struct birth_step *steps;
	struct task *init;

	check(restart, "memory");
	begin_world(&restart->world);
	init = &restart->world.tasks[0];
	init->process = world->tasks[0].process;
	init->thread = world->tasks[0].thread;
	restart->made[1] = init;
	births_find_mothers(image);
	steps = image->births.items;
	for (size_t i = image->births.count; i-- > 0;)
		take_step(restart, &steps[i]);
	compare(world, restart);
	count_kin(image, kin);
	free(restart);
}

/* ---- how long it takes ---- */

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000L + time.tv_nsec;
}

static void children(struct world *world, int count)
{
	for (int i = 0; i < count; i++)
		do_clone(world, &world->tasks[1], 0);
}

/* As daemons come about. */
static void orphans(struct world *world, int count)
{
	for (int i = 0; i < count / 2; i++) {
		struct task *parent = do_clone(world, &world->tasks[1], 0);

		parent->session = parent->number;
		do_clone(world, parent, 0);
		do_exit(world, parent, true);
	}
}

/* All of one session. */
static void siblings_of_dead(struct world *world, int count)
{
	struct task *parent = do_clone(world, &world->tasks[1], 0);

	parent->session = parent->number;
	for (int i = 0; i < count; i++)
		do_clone(world, parent, 1u << SHARE_FILES);
	do_exit(world, parent, true);
}

/* Each has had its parent's directories before, and a child since. */
static void successive(struct world *world, int count)
{
	for (int i = 0; i < count / 2; i++) {
		struct task *between = do_clone(world, &world->tasks[1], 1u << SHARE_FS);

		do_clone(world, between, 1u << SHARE_FS);
		do_unshare(world, between, 1u << SHARE_FS);
	}
}

/* Each has a child from before it made its session. */
static void early_children(struct world *world, int count)
{
	for (int i = 0; i < count / 2; i++) {
		struct task *leader = do_clone(world, &world->tasks[1], 0);

		do_clone(world, leader, 0);
		leader->session = leader->number;
	}
}

static void chain(struct world *world, int count)
{
	struct task *task = &world->tasks[1];

	for (int i = 0; i < count; i++)
		task = do_clone(world, task, 0);
}

static const struct shape {
	const char *name;
	void (*make)(struct world *world, int count);
} shapes[] = {
	{"children", children},
	{"orphans", orphans},
	{"siblings of dead", siblings_of_dead},
	{"successive", successive},
	{"early children", early_children},
	{"chain", chain},
};

static void measure(int count)
{
	struct world *world = calloc(1, sizeof(*world));

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		struct image image;
		int64_t before;

		begin_world(world);
		do_clone(world, &world->tasks[0], 0);
		shapes[i].make(world, count);
		make_image(&image, world);
		before = now();
		check(plan(&image), "%s: refused", shapes[i].name);
		printf("%s: %ld ns each\n", shapes[i].name, (now() - before) / count);
		pool_destroy(image.pool);
	}
	free(world);
}

static void random_trees(uint64_t seed, int trees, int steps)
{
	struct world *world = calloc(1, sizeof(*world));
	struct kin kin = {0};
	int refused = 0;

	for (int i = 0; i < trees; i++) {
		struct image image;

		state = (seed + (uint64_t)i) * 2 + 1;
		for (int j = 0; j < 10; j++)
			chance(1);
		tell("\ntree %lu", seed + (uint64_t)i);
		random_world(world, steps);
		make_image(&image, world);
		if (plan(&image))
			verify(&image, world, &kin);
		else
			refused++;
		pool_destroy(image.pool);
	}
	free(world);
	printf("%d trees, %d refused; pages of %d kin, %d again\n", trees, refused, kin.before,
	       kin.after);
}

int main(int argc, char **argv)
{
	tells = getenv("BIRTHS_TELL");
	if (argc == 3 && strcmp(argv[1], "-c") == 0)
		measure(atoi(argv[2]));
	else if (argc == 4)
		random_trees(strtoull(argv[1], NULL, 10), atoi(argv[2]), atoi(argv[3]));
	return argc < 3;
}
