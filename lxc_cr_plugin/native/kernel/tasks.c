/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tasks.h"

#include <linux/btf.h>
#include <string.h>
#include <unistd.h>

#include "../cleanup.h"
#include "../target/arch/x86_64.h"
#include "bpf.h"
#include "fields.h"

enum {
	FIELDS_SIZE = offsetof(struct kernel_task, id),
	CHUNK_SIZE = 256, /* the stack does not hold everything at once */
	SLOT_OWN = -8,	  /* see bpf_probe_place() */
	SLOT_CHUNK = SLOT_OWN - CHUNK_SIZE,
	BPF_DEPTH = BPF_REG_6,
	PF_KTHREAD = 0x00200000, /* the kernel's include/linux/sched.h */
};

_Static_assert(FIELDS_SIZE % 8 == 0, "the fields are zeroed in units of 8 bytes");
_Static_assert(SLOT_CHUNK >= -BPF_STACK_SIZE, "the stack is full");
_Static_assert(sizeof(struct kernel_task) ==
		       FIELDS_SIZE + 4 * sizeof(struct kernel_id) + sizeof(int64_t) +
			       KERNEL_SIGNALS * sizeof(struct kernel_sigaction),
	       "the record is the struct");
_Static_assert(sizeof(((struct kernel_task *)0)->actions) % CHUNK_SIZE == 0, "only whole chunks");

/* clang-format off */
#define FIELD(member, ...) KERNEL_FIELD(struct kernel_task, member, __VA_ARGS__)

/* From struct task_struct. */
static const struct kernel_field fields[] = {
	FIELD(pid, "pid"),
	FIELD(tgid, "tgid"),
	FIELD(ppid, "real_parent->tgid"),
	FIELD(parent_thread, "real_parent->pid"),
	FIELD(exit_state, "exit_state"),
	FIELD(flags, "flags"),
	FIELD(exit_code, "exit_code"),
	FIELD(jobctl, "jobctl"),
	FIELD(vfork_done, "vfork_done"),
	FIELD(switches, "nvcsw"),
	FIELD(blocked, "blocked.sig[0]"),
	FIELD(sas_ss_sp, "sas_ss_sp"),
	FIELD(sas_ss_size, "sas_ss_size"),
	FIELD(sas_ss_flags, "sas_ss_flags"),
	FIELD(pdeath_signal, "pdeath_signal"),
	FIELD(personality, "personality"),
	FIELD(thread_flags, "thread_info.flags"),
	FIELD(dispatch_selector, "syscall_dispatch.selector"),
	FIELD(dispatch_offset, "syscall_dispatch.offset"),
	FIELD(dispatch_len, "syscall_dispatch.len"),
	FIELD(clear_child_tid, "clear_child_tid"),
	FIELD(set_child_tid, "set_child_tid"),
	FIELD(robust_list, "robust_list"),
	FIELD(nanosleep.clockid, "restart_block.nanosleep.clockid"),
	FIELD(nanosleep.type, "restart_block.nanosleep.type"),
	FIELD(nanosleep.rmtp, "restart_block.nanosleep.rmtp"),
	FIELD(nanosleep.expires, "restart_block.nanosleep.expires"),
	FIELD(futex.uaddr, "restart_block.futex.uaddr"),
	FIELD(futex.val, "restart_block.futex.val"),
	FIELD(futex.flags, "restart_block.futex.flags"),
	FIELD(futex.bitset, "restart_block.futex.bitset"),
	FIELD(futex.time, "restart_block.futex.time"),
	FIELD(poll.ufds, "restart_block.poll.ufds"),
	FIELD(poll.nfds, "restart_block.poll.nfds"),
	FIELD(poll.has_timeout, "restart_block.poll.has_timeout"),
	FIELD(poll.tv_sec, "restart_block.poll.end_time.tv_sec", "restart_block.poll.tv_sec"),
	FIELD(poll.tv_nsec, "restart_block.poll.end_time.tv_nsec", "restart_block.poll.tv_nsec"),
	FIELD(comm, "comm"),
	FIELD(ptrace, "ptrace"),
	FIELD(timer_slack, "timer_slack_ns"),
	FIELD(default_timer_slack, "default_timer_slack_ns"),
	KERNEL_FIELD_IF_ANY(struct kernel_task, core_cookie, "core_cookie"),
	FIELD(signals_pending, "pending.signal"),
	FIELD(atomic_flags, "atomic_flags"),
	KERNEL_FIELD_IF_ANY(struct kernel_task, loginuid, "loginuid"),
	KERNEL_FIELD_IF_ANY(struct kernel_task, autogroup_nice, "signal->autogroup->nice"),
	FIELD(seccomp, "seccomp.mode"),
	FIELD(seccomp_filters, "seccomp.filter_count"),
	FIELD(tracer, "parent->pid"),
	KERNEL_FIELD_IF_ANY(struct kernel_task, protection_keys, "mm->context.pkey_allocation_map"),
	KERNEL_FIELD_IF_ANY(struct kernel_task, segments, "mm->context.ldt"),
	KERNEL_FIELD_IF_ANY(struct kernel_task, execute_only_key, "mm->context.execute_only_pkey"),
	KERNEL_FIELD_IF_ANY(struct kernel_task, numa_policy, "mempolicy"),
	KERNEL_FIELD_IF_ANY(struct kernel_task, undo_list, "sysvsem.undo_list"),
	FIELD(umask, "fs->umask"),
	FIELD(depth, "thread_pid->level"),
	FIELD(securebits, "cred->securebits"),
	FIELD(uid, "real_cred->uid"),
	FIELD(euid, "real_cred->euid"),
	FIELD(suid, "real_cred->suid"),
	FIELD(fsuid, "real_cred->fsuid"),
	FIELD(gid, "real_cred->gid"),
	FIELD(egid, "real_cred->egid"),
	FIELD(sgid, "real_cred->sgid"),
	FIELD(fsgid, "real_cred->fsgid"),
	FIELD(cap_inheritable, "real_cred->cap_inheritable"),
	FIELD(cap_permitted, "real_cred->cap_permitted"),
	FIELD(cap_effective, "real_cred->cap_effective"),
	FIELD(cap_bounding, "real_cred->cap_bset"),
	FIELD(cap_ambient, "real_cred->cap_ambient"),
	FIELD(user_ns, "real_cred->user_ns"),
	FIELD(group_info, "real_cred->group_info"),
	FIELD(groups, "real_cred->group_info->ngroups"),
	KERNEL_FIELD_IF_ANY(struct kernel_task, security, "real_cred->security"),
	KERNEL_FIELD_IF_ANY(struct kernel_task, session_keyring, "real_cred->session_keyring"),
	KERNEL_FIELD_IF_ANY(struct kernel_task, process_keyring, "real_cred->process_keyring"),
	KERNEL_FIELD_IF_ANY(struct kernel_task, thread_keyring, "real_cred->thread_keyring"),
	KERNEL_FIELD_IF_ANY(struct kernel_task, requested_keys, "real_cred->jit_keyring"),
	FIELD(brk, "mm->brk"),
	KERNEL_FIELD_IF_ANY(struct kernel_task, futex_hash, "mm->futex_phash"),
	FIELD(def_flags, "mm->def_flags"),
	FIELD(mm_flags, "mm->flags", "mm->_flags"),
	FIELD(membarrier, "mm->membarrier_state"),
	FIELD(mm, "mm"),
	FIELD(files, "files"),
	FIELD(fs, "fs"),
	FIELD(sighand, "sighand"),
	FIELD(seccomp_filter, "seccomp.filter"),
	FIELD(cgroups, "cgroups"),
	FIELD(nsproxy, "nsproxy"),
	FIELD(subreaper, "signal->is_child_subreaper"),
	FIELD(signal_flags, "signal->flags"),
	FIELD(group_exit_code, "signal->group_exit_code"),
	FIELD(group_stop_count, "signal->group_stop_count"),
	FIELD(signals_shared_pending, "signal->shared_pending.signal"),
	FIELD(limits, "signal->rlim"),
	FIELD(oom_score_adj, "signal->oom_score_adj"),
	FIELD(it_real_incr, "signal->it_real_incr"),
	/* CPUCLOCK_PROF is 0, CPUCLOCK_VIRT 1: the other way round than ITIMER_VIRTUAL and ITIMER_PROF. */
	FIELD(it_prof_expires, "signal->it[0].expires"),
	FIELD(it_prof_incr, "signal->it[0].incr"),
	FIELD(it_virt_expires, "signal->it[1].expires"),
	FIELD(it_virt_incr, "signal->it[1].incr"),
	FIELD(it_real_expires, "signal->real_timer.node.expires"),
	/* an hrtimer that is not armed keeps its last expiry */
	FIELD(it_real_armed, "signal->real_timer.is_queued", "signal->real_timer.state"),
	FIELD(posix_timers, "signal->posix_timers.first", "signal->posix_timers.next"),
};
/* clang-format on */

enum { FIELDS = sizeof(fields) / sizeof(fields[0]) };

static const struct kernel_field actions = {offsetof(struct kernel_task, actions),
					    sizeof(((struct kernel_task *)NULL)->actions),
					    {"sighand->action"},
					    false};

struct kernel_reader {
	struct bpf_task_iterator iterator;
	struct bpf_task_iterator strangers; /* tasks that it does not read */
};

/* Threads of the kernel are in no container, and there are many. */
static struct cr_error *assemble_filter(struct bpf_code *code, const struct btf *btf)
{
	struct btf_place place;
	size_t jump;

	TRY(btf_require(btf, "task_struct", "flags", &place));
	bpf_load(code, BPF_W, BPF_REG_1, BPF_OBJECT, (int)place.offset);
	jump = bpf_jump_unless_set(code, BPF_REG_1, PF_KTHREAD);
	bpf_end(code);
	bpf_land(code, jump);
	return NULL;
}

/* The end of a chunk from @start on that cuts no field in two. */
static size_t chunk_end(size_t start)
{
	size_t end = start + CHUNK_SIZE < FIELDS_SIZE ? start + CHUNK_SIZE : FIELDS_SIZE, last;

	do {
		last = end;
		for (size_t i = 0; i < FIELDS; i++) {
			if (fields[i].offset < end && fields[i].offset + fields[i].size > end)
				end = fields[i].offset & ~(size_t)7;
		}
	} while (end != last);
	return end;
}

static struct cr_error *assemble_fields(struct bpf_code *code, const struct btf *btf)
{
	for (size_t start = 0, end; start < FIELDS_SIZE; start = end) {
		struct kernel_part part = {.start = start, .slot = SLOT_CHUNK};

		part.end = end = chunk_end(start);
		if (end == start)
			return error_new(CR_INTERNAL, "A field of a task is larger than a chunk");
		bpf_zero(code, SLOT_CHUNK, end - start);
		TRY(kernel_fields_read(code, btf, "task_struct", fields, FIELDS, &part));
		bpf_write(code, SLOT_CHUNK, end - start);
	}
	return NULL;
}

/* BPF_DEPTH holds where in the array numbers[] the task's own namespace is, in bytes. */
static struct cr_error *assemble_id(struct bpf_code *code, const struct btf *btf, const char *path,
				    uint32_t numbers)
{
	struct btf_place pid, level, number, namespace;

	TRY(btf_require(btf, "task_struct", path, &pid));
	TRY(btf_require(btf, "pid", "level", &level));
	TRY(btf_require(btf, "upid", "nr", &number));
	TRY(btf_require(btf, "upid", "ns", &namespace));
	bpf_zero(code, SLOT_CHUNK, sizeof(struct kernel_id));
	bpf_follow(code, BPF_OBJECT, &pid);
	bpf_probe(code, SLOT_OWN, 8, BPF_BASE, pid.offset);
	bpf_load(code, BPF_DW, BPF_BASE, BPF_REG_10, SLOT_OWN);
	bpf_probe(code, SLOT_CHUNK + (int)offsetof(struct kernel_id, depth), 4, BPF_BASE,
		  level.offset);
	bpf_add_register(code, BPF_BASE, BPF_DEPTH);
	bpf_probe(code, SLOT_CHUNK + (int)offsetof(struct kernel_id, number), 4, BPF_BASE,
		  numbers + number.offset);
	bpf_probe(code, SLOT_CHUNK + (int)offsetof(struct kernel_id, namespace), 8, BPF_BASE,
		  numbers + namespace.offset);
	bpf_write(code, SLOT_CHUNK, sizeof(struct kernel_id));
	return NULL;
}

static struct cr_error *assemble_ids(struct bpf_code *code, const struct btf *btf)
{
	enum { UPID_SHIFT = 4 }; /* size of struct upid as a power of two */
	/* enum pid_type: PID, TGID, PGID, SID */
	static const char *const paths[] = {"thread_pid", "signal->pids[1]", "signal->pids[2]",
					    "signal->pids[3]"};
	uint32_t numbers = btf_pid_numbers(btf);
	struct btf_place level;

	if (!numbers || btf_struct_size(btf, "upid") != 1u << UPID_SHIFT)
		return error_new(CR_HOST, "This kernel numbers processes in another way");
	TRY(btf_require(btf, "task_struct", "thread_pid->level", &level));
	bpf_zero(code, SLOT_CHUNK, 8);
	bpf_probe_place(code, SLOT_CHUNK, &level, NULL);
	bpf_load(code, BPF_W, BPF_DEPTH, BPF_REG_10, SLOT_CHUNK);
	bpf_shift(code, BPF_LSH, BPF_DEPTH, UPID_SHIFT);
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		TRY(assemble_id(code, btf, paths[i], numbers));
	return NULL;
}

/* The system call that a task is in, or was last, as the kernel's entry has noted it. */
static struct cr_error *assemble_syscall(struct bpf_code *code, const struct btf *btf)
{
	struct btf_place place;

	TRY(btf_require(btf, "pt_regs", ARCH_PT_REGS_SYSCALL, &place));
	bpf_zero(code, SLOT_CHUNK, sizeof(int64_t));
	bpf_task_registers(code, BPF_BASE);
	bpf_probe(code, SLOT_CHUNK, place.size, BPF_BASE, place.offset);
	bpf_write(code, SLOT_CHUNK, sizeof(int64_t));
	return NULL;
}

static struct cr_error *assemble_actions(struct bpf_code *code, const struct btf *btf)
{
	struct btf_place place, chunk, previous;

	TRY(kernel_field_locate(btf, btf_find(btf, BTF_KIND_STRUCT, "task_struct"), &actions,
				&place));
	if (place.size != actions.size)
		return error_new(CR_HOST,
				 "Member %s of struct task_struct has %u bytes, expected %zu",
				 actions.paths[0], place.size, actions.size);
	for (uint32_t at = 0; at < place.size; at += CHUNK_SIZE) {
		chunk = place;
		chunk.offset += at;
		chunk.size = CHUNK_SIZE;
		bpf_probe_place(code, SLOT_CHUNK, &chunk, at ? &previous : NULL);
		bpf_write(code, SLOT_CHUNK, CHUNK_SIZE);
		previous = chunk;
	}
	return NULL;
}

/* Tasks in the pid namespace of @meant, or within, or traced: they are *taken by these jumps. */
static struct cr_error *assemble_selection(struct bpf_code *code, const struct btf *btf,
					   const struct kernel_id *meant, size_t taken[2])
{
	uint32_t numbers = btf_pid_numbers(btf);
	struct btf_place place;

	TRY(btf_require(btf, "task_struct", "ptrace", &place));
	bpf_load(code, BPF_W, BPF_REG_1, BPF_OBJECT, (int)place.offset);
	taken[0] = bpf_jump_unless_zero(code, BPF_REG_1);
	TRY(btf_require(btf, "task_struct", "thread_pid->level", &place));
	bpf_follow(code, BPF_OBJECT, &place);
	TRY(btf_require(btf, "upid", "ns", &place));
	/* of a task at less depth something else lies there, hardly ever the same: one more, then */
	bpf_probe(code, SLOT_OWN, 8, BPF_BASE,
		  numbers + meant->depth * btf_struct_size(btf, "upid") + place.offset);
	bpf_load(code, BPF_DW, BPF_REG_1, BPF_REG_10, SLOT_OWN);
	taken[1] = bpf_jump_if_equal(code, BPF_REG_1, meant->namespace);
	return NULL;
}

/* A record takes microseconds, and the host may have many tasks that are not meant. */
static struct cr_error *assemble_members(struct bpf_code *code, const struct btf *btf,
					 const struct kernel_id *meant)
{
	size_t taken[2];

	TRY(assemble_selection(code, btf, meant, taken));
	bpf_end(code);
	bpf_land(code, taken[0]);
	bpf_land(code, taken[1]);
	return NULL;
}

static struct cr_error *assemble(struct bpf_code *code, const struct btf *btf,
				 const struct kernel_id *meant)
{
	TRY(bpf_begin(code, btf, "bpf_iter__task", "task"));
	TRY(assemble_filter(code, btf));
	if (meant)
		TRY(assemble_members(code, btf, meant));
	TRY(assemble_fields(code, btf));
	TRY(assemble_ids(code, btf));
	TRY(assemble_syscall(code, btf));
	TRY(assemble_actions(code, btf));
	bpf_end(code);
	return NULL;
}

/* Only what has a session keyring writes it: 8 bytes. */
static struct cr_error *assemble_strangers(struct bpf_code *code, const struct btf *btf,
					   const struct kernel_id *meant)
{
	uint32_t type = btf_find(btf, BTF_KIND_STRUCT, "task_struct");
	struct btf_place place;
	size_t taken[2], none;

	TRY(bpf_begin(code, btf, "bpf_iter__task", "task"));
	TRY(assemble_filter(code, btf));
	TRY(assemble_selection(code, btf, meant, taken));
	if (btf_locate(btf, type, "real_cred->session_keyring", &place)) {
		bpf_probe_place(code, SLOT_CHUNK, &place, NULL);
		bpf_load(code, BPF_DW, BPF_REG_1, BPF_REG_10, SLOT_CHUNK);
		none = bpf_jump_if_zero(code, BPF_REG_1);
		bpf_write(code, SLOT_CHUNK, sizeof(uint64_t));
		bpf_land(code, none);
	}
	bpf_land(code, taken[0]);
	bpf_land(code, taken[1]);
	bpf_end(code);
	return NULL;
}

static void cleanup_reader(struct kernel_reader **reader)
{
	kernel_reader_close(*reader);
}

struct cr_error *kernel_reader_open(const struct btf *btf, const struct kernel_id *meant,
				    struct kernel_reader **ret)
{
	_cleanup_(cleanup_reader) struct kernel_reader *reader = calloc(1, sizeof(*reader));
	_cleanup_free_ struct bpf_code *code = calloc(2, sizeof(*code));

	if (!reader || !code)
		return error_nomem();
	TRY(assemble(&code[0], btf, meant));
	TRY(bpf_task_iterator_open(btf, &code[0], &reader->iterator));
	if (meant) {
		TRY(assemble_strangers(&code[1], btf, meant));
		TRY(bpf_task_iterator_open(btf, &code[1], &reader->strangers));
	}
	*ret = steal_pointer(&reader);
	return NULL;
}

void kernel_reader_close(struct kernel_reader *reader)
{
	if (!reader)
		return;
	bpf_task_iterator_close(&reader->iterator);
	bpf_task_iterator_close(&reader->strangers);
	free(reader);
}

struct notes {
	kernel_keyring_note note;
	void *context;
};

static struct cr_error *take_keyring(void *context, const void *record, bool *done)
{
	const struct notes *notes = context;

	(void)done;
	return notes->note(notes->context, *(const uint64_t *)record);
}

struct cr_error *kernel_reader_strangers(struct kernel_reader *reader, kernel_keyring_note note,
					 void *context)
{
	struct notes notes = {note, context};
	struct bpf_records records = {
		.record_size = sizeof(uint64_t),
		.take = take_keyring,
		.context = &notes,
	};

	return bpf_task_iterator_run(&reader->strangers, records);
}

struct selection {
	bool (*wanted)(void *context, const struct kernel_task *task);
	void *context;
	struct pool *pool;
	struct list *list;
};

static struct cr_error *take_task(void *context, const void *record, bool *done)
{
	struct selection *selection = context;
	const struct kernel_task *task = record;
	struct kernel_task *item;

	(void)done;
	if (selection->wanted && !selection->wanted(selection->context, task))
		return NULL;
	item = list_append(selection->pool, selection->list, sizeof(*item));
	if (!item)
		return error_nomem();
	*item = *task;
	return NULL;
}

struct cr_error *kernel_reader_tasks(struct kernel_reader *reader, struct pool *pool,
				     bool (*wanted)(void *context, const struct kernel_task *task),
				     void *context, struct list *ret)
{
	struct list list = {0};
	struct selection selection = {wanted, context, pool, &list};
	struct bpf_records records = {
		.record_size = sizeof(struct kernel_task),
		.take = take_task,
		.context = &selection,
	};

	TRY(bpf_task_iterator_run(&reader->iterator, records));
	*ret = list;
	return NULL;
}
