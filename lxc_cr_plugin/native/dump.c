/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The contents page of a checkpoint. */
#include "dump.h"

#include <fcntl.h>
#include <inttypes.h>
#include <search.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "clock_ns.h"
#include "collect.h"
#include "image/inventory.h"
#include "isolation.h"
#include "kinds/in_flight.h"
#include "kinds/other_names.h"
#include "kinds/wait.h"
#include "locks.h"
#include "outsiders.h"
#include "steps.h"

static struct cr_error *open_kernel(struct dump *dump)
{
	log_say(&dump->log, CR_DEBUG, "Read the kernel's types, and load BPF iterators");
	TRY(btf_open(&dump->btf));
	if (step_is_left_out(dump->options->fault, "probes"))
		btf_forbid_probes(dump->btf);
	TRY(kernel_peek_open(dump->btf, &dump->peek));
	kernel_futex_locate(dump->btf, &dump->futex_layout);
	TRY(kernel_keys_locate(dump->btf, &dump->key_layout));
	kernel_ptracers_locate(dump->btf, &dump->ptracer_layout);
	TRY(kernel_reader_open(dump->btf, NULL, &dump->kernel));
	TRY(kernel_probe(dump->kernel, dump->image.pool, &dump->bits));
	TRY(kernel_landlock_find(dump->kernel, dump->peek, dump->image.pool, &dump->landlock));
	if (dump->landlock.exists && !dump->landlock.found)
		log_say(&dump->log, CR_WARNING,
			"Where this kernel notes who is restricted by Landlock was not found: "
			"whoever is will not be after a restart");
	TRY(kernel_file_program_open(dump->btf, &dump->file_program));
	return kernel_vma_program_open(dump->btf, &dump->vma_program);
}

static struct cr_error *look(struct dump *dump, uint64_t *memory)
{
	struct list tids = {0};

	TRY(cgroup_tasks(dump->options->cgroup, dump->image.pool, &tids));
	locks_begin(dump);
	TRY(collect_tree(dump, tids.items, tids.count));
	TRY(isolation_check(dump));
	TRY(collect_checks(dump));
	TRY(outsiders_check(dump));
	TRY(locks_check(dump));
	TRY(other_names_search(dump));
	*memory = collect_memory_estimate(dump);
	dump->namespace = dump->init->kernel->id;
	collect_forget(dump);
	return NULL;
}

/*
 * Look at everything while it runs: obstacles are found before anybody is stopped, and room is
 * made. It takes several looks to tell what is there from what passes.
 */
static struct cr_error *survey(struct dump *dump, uint64_t *memory)
{
	enum { LOOKS = 6 };
	size_t left = 1;

	dump->running = true;
	for (int i = 0; i < LOOKS && left; i++) {
		log_say(&dump->log, CR_DEBUG, "Look at the container while it runs");
		TRY(look(dump, memory));
		left = obstacles_end_look(&dump->obstacles);
	}
	dump->running = false;
	if (dump->ptracer_layout.hidden)
		log_say(&dump->log, CR_WARNING,
			"What processes have set by PR_SET_PTRACER is not saved: this kernel does "
			"not show where Yama keeps it (kernel.kptr_restrict, CONFIG_KALLSYMS_ALL)");
	obstacles_tell(&dump->obstacles, dump->log.listener);
	return NULL;
}

static struct cr_error *prepare(struct dump *dump)
{
	uint64_t memory;

	TRY(step(dump->options->fault, CHECKPOINT_PREPARE));
	TRY(open_kernel(dump));
	log_progress(&dump->log, "prepare", 0, 1);
	TRY(survey(dump, &memory));
	if (dump->obstacles.found.count)
		return error_new(CR_UNSUPPORTED,
				 "The container cannot be checkpointed: %zu obstacles",
				 dump->obstacles.found.count);
	TRY(kernel_reader_open(dump->btf, &dump->namespace, &dump->kernel_container));
	log_say(&dump->log, CR_DEBUG, "Make room for %" PRIu64 " pages", memory / PAGE);
	TRY(page_store_prepare(&dump->image.pages, memory / PAGE));
	TRY(proc_boot_id(dump->image.pool, &dump->image.clocks.boot));
	TRY(wait_prepare(dump));
	log_progress(&dump->log, "prepare", 1, 1);
	return NULL;
}

static struct cr_error *stop(struct dump *dump)
{
	TRY(step(dump->options->fault, CHECKPOINT_STOP));
	TRY(locks_queue(dump));
	log_hold(&dump->log);
	return stop_all(&dump->stopped);
}

static struct cr_error *collect(struct dump *dump)
{
	struct list tids = {0};

	TRY(step(dump->options->fault, CHECKPOINT_STOPPED));
	locks_begin(dump);
	for (size_t i = 0; i < dump->stopped.tasks.count; i++) {
		pid_t *slot = list_append(dump->image.pool, &tids, sizeof(*slot));

		if (!slot)
			return error_nomem();
		*slot = ((struct stopped_task *)dump->stopped.tasks.items)[i].tid;
	}
	log_say(&dump->log, CR_DEBUG, "Read the tree of %zu tasks", tids.count);
	TRY(collect_tree(dump, tids.items, tids.count));
	TRY(isolation_check(dump));
	TRY(kernel_ptracers_read(&dump->ptracer_layout, dump->peek, dump->image.pool,
				 &dump->ptracers));
	TRY(step(dump->options->fault, CHECKPOINT_TREE));
	TRY(collect_states(dump));
	log_say(&dump->log, CR_DEBUG, "Read locks and leases");
	TRY(locks_collect(dump));
	TRY(step(dump->options->fault, CHECKPOINT_STATES));
	TRY(collect_pages(dump));
	return step(dump->options->fault, CHECKPOINT_PAGES);
}

static void read_clocks(struct dump *dump)
{
	struct cr_clocks *clocks = &dump->clocks;
	struct image_clocks *saved = &dump->image.clocks;

	clocks->monotonic = saved->monotonic = clock_ns(CLOCK_MONOTONIC);
	clocks->boottime = saved->boottime = clock_ns(CLOCK_BOOTTIME);
	clocks->realtime = saved->realtime = clock_ns(CLOCK_REALTIME);
}

static void release(struct dump *dump)
{
	in_flight_forget(dump);
	wait_resume(dump);
	locks_release(dump);
	stop_release(&dump->stopped, dump->init ? dump->init->host_tid : 0);
	log_release(&dump->log);
}

static struct cr_error *notify(struct dump *dump, char what)
{
	if (dump->options->notice_fd >= 0 && write(dump->options->notice_fd, &what, 1) != 1)
		return error_new(CR_CANCELLED, "The supervisor has gone");
	return NULL;
}

/* Wait until the supervisor says @wanted; anything else, or its death, means that it gives up. */
static struct cr_error *await(struct dump *dump, char wanted, const char *otherwise)
{
	char verdict = 0;

	if (read(dump->options->verdict_fd, &verdict, 1) != 1 || verdict != wanted)
		return error_new(CR_CANCELLED, "%s; the container runs on", otherwise);
	return NULL;
}

/*
 * Files are of the same instant as memory: the supervisor captures them while we collect the rest,
 * and nobody runs before both are done.
 */
static struct cr_error *collect_with_files(struct dump *dump, uint64_t *collected)
{
	if (dump->options->files)
		TRY(notify(dump, 'S'));
	TRY(collect(dump));
	*collected = clock_ns(CLOCK_MONOTONIC);
	if (dump->options->files)
		TRY(await(dump, 'F', "The files were not captured"));
	return step(dump->options->fault, CHECKPOINT_FILES);
}

/* What it does once before, right now, costs it less when all stand: /proc/locks, for one, is read after
 * a grace period of RCU, unless one has just passed. */
static struct cr_error *await_rehearsal(struct dump *dump)
{
	TRY(step(dump->options->fault, CHECKPOINT_REHEARSE));
	if (!dump->options->files)
		return NULL;
	TRY(notify(dump, 'P'));
	return await(dump, 'R', "Files could not be captured");
}

/* The result is complete before the supervisor hears that everything is written: the manifest quotes it. */
static struct cr_error *write_out(struct dump *dump, struct cr_checkpoint_result *result)
{
	uint64_t begin = clock_ns(CLOCK_MONOTONIC);

	TRY(step(dump->options->fault, CHECKPOINT_WRITE));
	TRY(inventory_write(&dump->image, dump->options->image_fd, &dump->log));
	result->pages = dump->image.pages.count;
	result->writing = clock_ns(CLOCK_MONOTONIC) - begin;
	TRY(step(dump->options->fault, CHECKPOINT_WRITTEN));
	return notify(dump, 'W');
}

/* With --stop: everything stands until the image is committed, and runs on if it never is. */
static struct cr_error *await_commit(struct dump *dump)
{
	TRY(await(dump, 'C', "The image was not committed"));
	TRY(step(dump->options->fault, CHECKPOINT_COMMITTED));
	log_say(&dump->log, CR_DEBUG, "Kill init and all %zu tasks", dump->stopped.tasks.count);
	if (kill(dump->init->host_tid, SIGKILL) < 0)
		return error_sys("Failed to end the container");
	/*
	 * The end of init reaches the others later, and until then they would run: they would change
	 * files, and tell peers what the image does not know.
	 */
	stop_kill(&dump->stopped);
	return NULL;
}

static void count(const struct dump *dump, struct cr_checkpoint_result *result)
{
	result->clocks = dump->clocks;
	result->processes = (uint32_t)dump->image.processes.count;
	result->threads = dump->image.threads;
	result->files = dump->open_files;
	result->pages = dump->image.pages.count;
}

static struct cr_error *checkpoint(struct dump *dump, struct cr_checkpoint_result *result)
{
	uint64_t begin, stopped, collected = 0, captured;
	struct cr_error *error;

	TRY(prepare(dump));
	TRY(await_rehearsal(dump));
	TRY(wait_sample(dump));
	begin = clock_ns(CLOCK_MONOTONIC);
	error = stop(dump);
	read_clocks(dump);
	stopped = dump->clocks.monotonic;
	if (!error)
		error = collect_with_files(dump, &collected);
	captured = clock_ns(CLOCK_MONOTONIC);
	if (error)
		wait_hide_all(dump);
	if (error || !dump->options->stop)
		release(dump);
	result->downtime = dump->options->stop ? 0 : clock_ns(CLOCK_MONOTONIC) - begin;
	log_release(&dump->log);
	if (error)
		return error;
	result->stopping = stopped - begin;
	result->collecting = collected - stopped;
	result->capturing = captured - collected;
	count(dump, result);
	error = write_out(dump, result);
	if (!error && dump->options->stop)
		error = await_commit(dump);
	if (dump->options->stop)
		release(dump);
	return error;
}

static struct cr_error *dump_init(struct dump *dump, const struct cr_checkpoint_options *options,
				  const struct cr_listener *listener)
{
	memset(dump, 0, sizeof(*dump));
	log_init(&dump->log, listener);
	dump->options = options;
	dump->root = -1;
	dump->posix_queues = -1;
	proc_raise_own_limit();
	TRY(pool_create(8 << 20, &dump->image.pool));
	dump->stopped = (struct stop_set){
		.pool = dump->image.pool,
		.log = &dump->log,
		.cgroup = options->cgroup,
		.freezer = options->freezer,
		.freezer_is_v2 = options->freezer_is_v2,
	};
	return NULL;
}

static void keep_node(void *node)
{
	(void)node; /* lives in the pool */
}

static void dump_deinit(struct dump *dump)
{
	collect_forget(dump);
	obstacles_deinit(&dump->obstacles);
	tdestroy(dump->known_paths, keep_node);
	kernel_wait_reader_close(dump->wait_reader);
	kernel_timer_reader_close(dump->timer_reader);
	kernel_vma_program_close(dump->vma_program);
	if (dump->posix_queues >= 0)
		close(dump->posix_queues);
	kernel_tty_reader_close(dump->tty_reader);
	kernel_numa_reader_close(dump->numa_reader);
	kernel_undo_reader_close(dump->undo_reader);
	kernel_unix_sockets_close(dump->kernel_sockets);
	kernel_epolls_close(dump->kernel_epolls);
	kernel_dnotify_close(dump->kernel_dnotify);
	kernel_open_files_close(dump->kernel_open_files);
	lease_trace_close(dump->lease_trace);
	kernel_locks_close(dump->kernel_locks);
	kernel_file_program_close(dump->file_program);
	kernel_reader_close(dump->kernel_container);
	kernel_reader_close(dump->kernel);
	kernel_peek_close(dump->peek);
	btf_close(dump->btf);
	page_store_deinit(&dump->image.pages);
	pool_destroy(dump->image.pool);
}

struct cr_error *cr_checkpoint(const struct cr_checkpoint_options *options,
			       const struct cr_listener *listener,
			       struct cr_checkpoint_result *result)
{
	struct dump dump;
	struct cr_error *error = dump_init(&dump, options, listener);

	memset(result, 0, sizeof(*result));
	if (!error)
		error = checkpoint(&dump, result);
	dump_deinit(&dump);
	return error;
}

struct cr_error *cr_check(const struct cr_checkpoint_options *options,
			  const struct cr_listener *listener, uint32_t *obstacles)
{
	struct dump dump;
	struct cr_error *error = dump_init(&dump, options, listener);
	uint64_t memory;

	if (!error)
		error = open_kernel(&dump);
	if (!error)
		error = survey(&dump, &memory);
	*obstacles = (uint32_t)dump.obstacles.found.count;
	dump_deinit(&dump);
	return error;
}

static bool is_refusal(const struct cr_error *error)
{
	return error->code == CR_UNSUPPORTED || error->code == CR_ISOLATION ||
	       error->code == CR_HOST;
}

struct cr_error *dump_refuse(struct dump *dump, struct cr_error *error)
{
	if (!error || !dump->running)
		return error;
	if (is_refusal(error))
		return obstacles_add(&dump->obstacles, dump->image.pool, error);
	/* a task that changes while we look; under the stop it would be an error */
	cr_error_free(error);
	return NULL;
}

struct kernel_task *dump_kernel_task(struct dump *dump, pid_t tid)
{
	size_t low = 0, high = dump->kernel_tasks.count;
	struct kernel_task *tasks = dump->kernel_tasks.items;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (tasks[middle].pid == tid)
			return &tasks[middle];
		if (tasks[middle].pid < tid)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}
