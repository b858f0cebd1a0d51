#include "vm/fs_work.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct job {
    void (*run)(void *arg);
    void (*done)(void *arg);
    void *arg;
    struct job *next;
};

static struct job *todo, **todo_tail = &todo, *over; /* under lock */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t some = PTHREAD_COND_INITIALIZER;
static int bell = -1;
static unsigned workers, jobs; /* the loop's */

static void *work(void *unused)
{
    (void)unused;
    for (;;) {
        pthread_mutex_lock(&lock);
        while (!todo)
            pthread_cond_wait(&some, &lock);
        struct job *j = todo;
        todo = j->next;
        if (!todo)
            todo_tail = &todo;
        pthread_mutex_unlock(&lock);
        j->run(j->arg);
        pthread_mutex_lock(&lock);
        j->next = over;
        over = j;
        pthread_mutex_unlock(&lock);
        uint64_t one = 1;
        while (write(bell, &one, sizeof one) < 0) /* EINTR; the counter does not fill */
            ;
    }
    return NULL;
}

static void on_bell(evutil_socket_t fd, short what, void *arg)
{
    uint64_t n;
    (void)what;
    (void)arg;
    if (read((int)fd, &n, sizeof n) < 0)
        return;
    pthread_mutex_lock(&lock);
    struct job *j = over, *next;
    over = NULL;
    pthread_mutex_unlock(&lock);
    for (; j; j = next) {
        next = j->next;
        jobs--;
        j->done(j->arg);
        free(j);
    }
}

int work_init(struct event_base *base)
{
    bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct event *ev = bell < 0 ? NULL : event_new(base, bell, EV_READ | EV_PERSIST, on_bell, NULL);
    pthread_attr_t a;
    if (!ev || event_add(ev, NULL) < 0 || pthread_attr_init(&a) != 0)
        return -1;
    pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&a, 256 * 1024);
    for (pthread_t t; workers < FS_WORKERS && pthread_create(&t, &a, work, NULL) == 0;)
        workers++;
    pthread_attr_destroy(&a);
    return workers ? 0 : -1;
}

bool work_add(void (*run)(void *), void (*done)(void *), void *arg)
{
    struct job *j = workers && jobs < FS_JOBS_MAX ? malloc(sizeof *j) : NULL;
    if (!j)
        return false;
    *j = (struct job){.run = run, .done = done, .arg = arg};
    jobs++;
    pthread_mutex_lock(&lock);
    *todo_tail = j;
    todo_tail = &j->next;
    pthread_cond_signal(&some);
    pthread_mutex_unlock(&lock);
    return true;
}
