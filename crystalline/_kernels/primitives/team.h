/* A team of threads of one process: one run at a time, in stages that end at a barrier.
 *
 *   member 0 is the caller of `team_run`; the others are threads that live as long as the team
 *
 *   word      written by                                 read by
 *   turn      the caller, + 1: a run (or the end)        the threads, which sleep on it in between
 *   arrived   each member, + 1 at a barrier; the last    -
 *             sets it to 0
 *   stage     the last to arrive, + 1                    the others, which wait on it
 *   sleeping  those who go to sleep, on turn or stage    those who would wake them
 *
 * A run ends with a barrier, so that nobody is in the work of a run when `work` changes.  Whoever
 * waits spins for a moment, offering its core to others, then sleeps; where there are more members
 * than cores, it sleeps at once.  Sleepers look again every TEAM_LOOK_NS, though a wake-up cannot
 * be lost: a sleeper says so before it looks at the word, a waker changes the word before it looks for
 * sleepers.
 */
#ifndef CRYSTALLINE_TEAM_H
#define CRYSTALLINE_TEAM_H

#include "atomics.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEAM_SPIN_NS = 50000, TEAM_LOOK_NS = 1000000000 };

typedef void (*TeamWork)(int member, int members, void *argument);
typedef void (*TeamHook)(void);

typedef struct TeamThreads TeamThreads;
typedef struct {
  TeamThreads *team;
  int member;
  pthread_t thread;
} TeamMember;

#define TEAM_LINE __attribute__((aligned(64)))
struct TeamThreads {
  int members;
  int pid; /* of the process that has the threads: a fork has none */
  int64_t spin_ns;
  TeamHook begin, end; /* around a member's work in a run */
  TeamWork work;
  void *argument;
  int is_closing;
  int64_t busy; /* whether there is a run */
  int64_t turn TEAM_LINE;
  int64_t sleeping_turn;
  int64_t arrived TEAM_LINE;
  int64_t stage TEAM_LINE;
  int64_t sleeping_stage;
  TeamMember others[] TEAM_LINE;
};

static inline void team_wait(const TeamThreads *t, int64_t *word, int64_t value,
                             int64_t *sleeping) {
  if (word_spin_until_not_equal(word, value, t->spin_ns)) return;
  word_fetch_add(sleeping, 1);
  while (word_load(word) == value) word_futex_wait(word, value, TEAM_LOOK_NS);
  word_fetch_add(sleeping, -1);
}

static inline void team_change(int64_t *word, const int64_t *sleeping) {
  word_fetch_add(word, 1);
  if (word_load(sleeping)) word_futex_wake(word, INT_MAX);
}

/* Every member must come here as often as the others; NULL: a team of one. */
static void team_barrier(TeamThreads *t) {
  if (!t || t->members == 1) return;
  const int64_t stage = word_load(&t->stage);
  if (word_fetch_add(&t->arrived, 1) + 1 < t->members) {
    team_wait(t, &t->stage, stage, &t->sleeping_stage);
    return;
  }
  word_store(&t->arrived, 0);
  team_change(&t->stage, &t->sleeping_stage);
}

static void *team_member(void *argument) {
  TeamMember *m = argument;
  TeamThreads *t = m->team;
  char name[16];
  snprintf(name, sizeof name, "cllm-team-%d", m->member);
  prctl(PR_SET_NAME, name);
  for (int64_t turn = 0;; turn++) {
    team_wait(t, &t->turn, turn, &t->sleeping_turn);
    if (t->is_closing) return NULL;
    t->begin();
    t->work(m->member, t->members, t->argument);
    t->end();
    team_barrier(t);
  }
}

/* Ends the threads; there must be no run.  In a fork there are none to end. */
static void team_close(TeamThreads *t) {
  if (!t) return;
  if (t->pid == getpid()) {
    t->is_closing = 1;
    team_change(&t->turn, &t->sleeping_turn);
    for (int i = 0; i < t->members - 1; i++) pthread_join(t->others[i].thread, NULL);
  }
  free(t);
}

/* NULL, with errno, where memory or threads are short.  The threads block every signal, so that
 * those of the process go to who can handle them. */
static TeamThreads *team_open(int members, int cores, TeamHook begin, TeamHook end) {
  const size_t size = sizeof(TeamThreads) + (size_t)members * sizeof(TeamMember);
  TeamThreads *t = aligned_alloc(64, (size + 63) / 64 * 64);
  if (!t) return NULL;
  memset(t, 0, size);
  t->pid = getpid();
  t->spin_ns = members <= cores ? TEAM_SPIN_NS : 0;
  t->begin = begin;
  t->end = end;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = 0;
  for (t->members = 1; t->members < members && !error;) {
    TeamMember *m = &t->others[t->members - 1];
    m->team = t;
    m->member = t->members;
    error = pthread_create(&m->thread, NULL, team_member, m);
    if (!error) t->members++;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (!error) return t;
  team_close(t);
  errno = error;
  return NULL;
}

/* Returns 0; or what forbids a run: EBUSY where there is one, ECHILD in a fork. */
static int team_go(TeamThreads *t, TeamWork work, void *argument) {
  if (t->pid != getpid()) return ECHILD;
  if (!word_compare_exchange(&t->busy, 0, 1)) return EBUSY;
  if (t->members > 1) {
    t->work = work;
    t->argument = argument;
    team_change(&t->turn, &t->sleeping_turn);
  }
  t->begin();
  work(0, t->members, argument);
  t->end();
  team_barrier(t);
  word_store(&t->busy, 0);
  return 0;
}

#endif
