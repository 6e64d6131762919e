"""Attacks: what somebody tries with the credentials of one part. One command after the other, parted by ` ; `.

`{user}` is the user, `{run}` a run of a host, `{token}` the id of the joiner's own token and `{other}` of another one.
"""

#: What nobody may do: the server's own affairs, other people's keys and channels, and what all share.
EVERYBODY = """
    KEYS * ; SCAN 0 ; SCAN 0 MATCH fleet:* COUNT 1000 ; RANDOMKEY ; DBSIZE ; CONFIG GET * ; CONFIG GET requirepass ;
    CONFIG SET maxmemory 1 ; CONFIG SET appendonly no ; CONFIG REWRITE ; CONFIG RESETSTAT ; ACL WHOAMI ; ACL LIST ;
    ACL USERS ; ACL GETUSER control ; ACL SETUSER {user} +@all ~* &* ; ACL SETUSER evil on nopass +@all ~* &* ;
    ACL DELUSER h-h2 ; ACL LOAD ; ACL SAVE ; ACL LOG ; ACL LOG RESET ; ACL DRYRUN control GET elsewhere ;
    ACL GENPASS ; ACL CAT ; EVAL "return redis.call('FLUSHALL')" 0 ; EVAL "while true do end" 0 ;
    EVAL_RO "return redis.call('KEYS', '*')" 0 ; EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0 ;
    EVALSHA_RO e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0 ; SCRIPT LOAD "return 1" ; SCRIPT FLUSH ; SCRIPT KILL ;
    SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db ; FUNCTION LOAD "#!lua name=evil" ; FUNCTION LIST ;
    FUNCTION FLUSH ; FUNCTION DUMP ; FCALL evil 0 ; FCALL_RO evil 0 ; MODULE LIST ; MODULE LOAD /tmp/evil.so ;
    MONITOR ; FLUSHALL ; FLUSHALL ASYNC ; FLUSHDB ; SWAPDB 0 1 ; SELECT 1 ; MOVE elsewhere 1 ; SHUTDOWN ;
    SHUTDOWN NOSAVE ; SAVE ; BGSAVE ; BGREWRITEAOF ; LASTSAVE ; DEBUG SLEEP 10 ; DEBUG SEGFAULT ; DEBUG JMAP ;
    REPLICAOF 127.0.0.1 1 ; SLAVEOF NO ONE ; FAILOVER ; PSYNC ? -1 ; SYNC ; REPLCONF listening-port 1 ; ROLE ;
    WAIT 0 0 ; CLUSTER INFO ; CLUSTER RESET ; CLUSTER MEET 127.0.0.1 1 ; ASKING ; READONLY ; LATENCY LATEST ;
    LATENCY RESET ; SLOWLOG GET ; SLOWLOG RESET ; MEMORY DOCTOR ; MEMORY USAGE elsewhere ; MEMORY PURGE ; COMMAND ;
    COMMAND LIST ; COMMAND GETKEYS GET elsewhere ; CLIENT LIST ; CLIENT INFO ; CLIENT ID ; CLIENT GETNAME ;
    CLIENT KILL TYPE normal ; CLIENT KILL USER h-h2 ; CLIENT KILL USER control ; CLIENT PAUSE 100000 ;
    CLIENT UNPAUSE ; CLIENT NO-EVICT on ; CLIENT REPLY OFF ; CLIENT UNBLOCK 1 ; CLIENT TRACKING ON ;
    CLIENT TRACKING ON BCAST ; CLIENT CACHING YES ; CLIENT TRACKINGINFO ; CLIENT GETREDIR ; PUBSUB CHANNELS ;
    PUBSUB NUMSUB fleet:watch ; PUBSUB NUMPAT ; SUBSCRIBE /h-h2.celeryev/task.multi ; SUBSCRIBE celeryev ;
    PSUBSCRIBE * ; PSUBSCRIBE fleet:* ; PSUBSCRIBE celery-task-meta-* ; PSUBSCRIBE /h-h2.celeryev/* ;
    SSUBSCRIBE fleet:watch ; PUBLISH fleet:watch forged ; PUBLISH celery-task-meta-h2:{run} forged ;
    PUBLISH /h-h2.celeryev/task.multi forged ; PUBLISH /h-h1x.celeryev/task.multi forged ;
    PUBLISH /0.celery.pidbox forged ; PUBLISH __keyspace@0__:elsewhere forged ; SPUBLISH fleet:watch forged ;
    MIGRATE 127.0.0.1 1 elsewhere 0 1000 ; MIGRATE 127.0.0.1 1 fleet:h:h2:q 0 1000 COPY ;
    RESTORE fleet:h:h2:q 0 x REPLACE ; OBJECT ENCODING fleet:h:h2:q ; OBJECT FREQ fleet:h:h2:q ; DUMP fleet:h:h2:q ;
    TYPE fleet:h:h2:q ; TTL fleet:h:h2:q ; TOUCH fleet:h:h2:q ; LRANGE fleet:h:h2:q 0 -1 ;
    LRANGE fleet:h:h2:inbox:1 0 -1 ; LRANGE fleet:h:h2:ctl 0 -1 ; LRANGE fleet:h:h2:dead 0 -1 ;
    LINDEX fleet:h:h2:q 0 ; LPOS fleet:h:h2:q item ; LPOP fleet:h:h2:q ; RPOP fleet:h:h2:q ;
    LMPOP 1 fleet:h:h2:q LEFT ; BLMPOP 1 1 fleet:h:h2:q LEFT ; BLPOP fleet:h:h2:q 1 ; BRPOP fleet:h:h2:q 1 ;
    LREM fleet:h:h2:q 0 item ; LTRIM fleet:h:h2:q 1 0 ; LSET fleet:h:h2:q 0 forged ;
    LINSERT fleet:h:h2:q BEFORE item forged ; LPUSHX fleet:h:h2:q forged ; RPUSHX fleet:h:h2:q forged ;
    RPUSH fleet:h:h2:q forged ; RPOPLPUSH fleet:h:h2:q fleet:h:h2:dead ; BRPOPLPUSH fleet:h:h2:q fleet:h:h2:dead 1 ;
    LMOVE fleet:h:h2:q fleet:h:h2:dead LEFT LEFT ; BLMOVE fleet:h:h2:q fleet:h:h2:dead LEFT LEFT 1 ;
    DEL fleet:h:h2:q ; UNLINK fleet:h:h2:q ; RENAME fleet:h:h2:q fleet:h:h1:q ; RENAMENX fleet:h:h2:q fleet:h:h1:q ;
    COPY fleet:h:h2:q fleet:h:h1:q REPLACE ; SORT fleet:h:h2:q ALPHA ; SORT fleet:h:h2:q ALPHA STORE fleet:h:h1:q ;
    SORT_RO fleet:h:h2:q ALPHA ; EXPIRE fleet:h:h2:q 1 ; PEXPIRE fleet:h:h2:q 1 ; EXPIREAT fleet:h:h2:q 1 ;
    PERSIST fleet:h:h2:q ; WATCH fleet:h:h2:q ; GET fleet:h:h2:epoch ; SET fleet:h:h2:epoch 99999 ;
    INCR fleet:h:h2:epoch ; GETDEL fleet:h:h2:epoch ; GETEX fleet:h:h2:epoch EX 1 ; GETSET fleet:h:h2:epoch 1 ;
    APPEND fleet:h:h2:epoch 1 ; SETRANGE fleet:h:h2:epoch 0 9 ; SET fleet:presence:h2 forged ;
    SETEX fleet:presence:h2 1 forged ; DEL fleet:presence:h2 ; SET fleet:inventory:h2 forged ;
    SET celery-task-meta-h2:{run} forged ; SETEX celery-task-meta-h2:{run} 9 forged ; DEL celery-task-meta-h2:{run} ;
    XADD fleet:h:h2:out:{run} * entry forged ; XADD fleet:h:h2:out:{run} MAXLEN 0 * entry forged ;
    XTRIM fleet:h:h2:out:{run} MAXLEN 0 ; XDEL fleet:h:h2:out:{run} 1-1 ; XSETID fleet:h:h2:out:{run} 9-9 ;
    XRANGE fleet:h:h2:out:{run} - + ; XLEN fleet:h:h2:out:{run} ; XINFO STREAM fleet:h:h2:out:{run} ;
    XGROUP CREATE fleet:h:h2:out:{run} mine 0 ; DEL fleet:h:h2:out:{run} ; EXPIRE fleet:h:h2:out:{run} 1 ;
    PUBLISH fleet:h:h2:out:{run} forged ; PSUBSCRIBE fleet:h:*:out:* ;
    LRANGE fleet:reports:h2 0 -1 ; LPUSH fleet:reports:h2 forged ; LTRIM fleet:reports:h2 1 0 ; DEL fleet:reports:h2 ;
    LRANGE fleet:reports:p:bob 0 -1 ; LPOS fleet:reports:p:bob report ; LPUSH fleet:reports:p:bob forged ;
    SMEMBERS fleet:reports:dirty ; SPOP fleet:reports:dirty ; SREM fleet:reports:dirty h2 ;
    SISMEMBER fleet:reports:dirty h2 ; LPUSH fleet:reports:dirty x ; DEL fleet:reports:dirty ;
    HSET fleet:hosts h2 forged ; HSETNX fleet:hosts h3 forged ; HDEL fleet:hosts h2 ; DEL fleet:hosts ;
    RENAME fleet:hosts elsewhere ; EXPIRE fleet:hosts 1 ; HSET fleet:principals bob forged ;
    HGETALL fleet:principals ; HDEL fleet:principals bob ; DEL fleet:principals ; SET fleet:trust forged ;
    DEL fleet:trust ; SET fleet:policy forged ; DEL fleet:policy ; GETDEL fleet:policy ; APPEND fleet:policy x ;
    GET fleet:control:lease ; SET fleet:control:lease mine ; DEL fleet:control:lease ;
    PEXPIRE fleet:control:lease 1 ; HGETALL fleet:control:withdrawn ; HSET fleet:control:withdrawn x forged ;
    DEL fleet:control:withdrawn ; LRANGE fleet:enroll:requests 0 -1 ; RPOP fleet:enroll:requests ;
    BRPOP fleet:enroll:requests 1 ; DEL fleet:enroll:requests ; LPUSH fleet:enroll:reply:{other}:request forged ;
    LRANGE fleet:enroll:reply:{other}:request 0 -1 ; BRPOP fleet:enroll:reply:{other}:request 1 ; GET elsewhere ;
    SET elsewhere mine ; SADD _kombu.binding.celery x
"""

#: What a principal, say, may do, and host h1 may not; its own reports; keys whose names begin like its own.
ONLY_A_HOST = """
    INFO ; INFO server ; LRANGE fleet:reports:h1 0 -1 ; LINDEX fleet:reports:h1 0 ; LPOP fleet:reports:h1 ;
    RPOP fleet:reports:h1 ; LREM fleet:reports:h1 0 report ; LTRIM fleet:reports:h1 1 0 ; DEL fleet:reports:h1 ;
    EXPIRE fleet:reports:h1 1 ; RENAME fleet:reports:h1 fleet:h:h1:dead ;
    LMOVE fleet:reports:h1 fleet:h:h1:dead LEFT LEFT ; LMOVE fleet:h:h2:q fleet:h:h1:q LEFT LEFT ;
    LMOVE fleet:h:h1:q fleet:h:h2:q LEFT LEFT ; LMOVE fleet:h:h10:q fleet:h:h1:q LEFT LEFT ;
    LMOVE fleet:enroll:requests fleet:h:h1:q LEFT LEFT ; LMOVE fleet:h:h1:q fleet:reports:h1 LEFT LEFT ;
    BLMOVE fleet:h:h2:q fleet:h:h1:q LEFT LEFT 1 ; BLMOVE fleet:h:h1:q fleet:h:h2:q LEFT LEFT 1 ;
    RPOPLPUSH fleet:h:h2:q fleet:h:h1:q ; LPUSH fleet:h:h2:q forged ; LPUSH fleet:h:h2:ctl forged ;
    LPUSH fleet:h:h10:q forged ; LPUSH fleet:h:h1-x:q forged ; LPUSH fleet:h:h1 forged ; LLEN fleet:h:h2:q ;
    LLEN fleet:reports:h10 ; GET fleet:presence:h2 ; MGET fleet:presence:h1 fleet:presence:h2 ;
    GET fleet:presence:h10 ; SET fleet:presence:h10 forged ; SET fleet:presence:h1-x forged ;
    SET fleet:presence:h1:x forged ; EXISTS fleet:presence:h2 ; GET fleet:inventory:h1 ; GET fleet:inventory:h2 ;
    DEL fleet:inventory:h1 ; MGET fleet:inventory:h1 fleet:inventory:h2 ; SET fleet:inventory:h1 x GET ;
    GET celery-task-meta-h1:{run} ; GET celery-task-meta-h2:{run} ; SET celery-task-meta-h10:{run} forged ;
    SET celery-task-meta-h1-x:{run} forged ; SET celery-task-meta-h1 forged ;
    PUBLISH celery-task-meta-h10:{run} forged ; PUBLISH /h-h10.celeryev/task.multi forged ;
    PUBLISH /h-h1-x.celeryev/task.multi forged ; SUBSCRIBE fleet:watch ; SUBSCRIBE celery-task-meta-h1:{run} ;
    SUBSCRIBE celery-task-meta-h2:{run} ; UNSUBSCRIBE ; LPUSH fleet:reports:h10 forged ;
    LPUSH fleet:reports:p:alice forged ; SCARD fleet:reports:dirty ; HGET fleet:hosts h1 ; HGETALL fleet:hosts ;
    HKEYS fleet:hosts ; HEXISTS fleet:hosts h2 ; HGET fleet:principals alice ; EXISTS fleet:trust ;
    EXISTS fleet:control:lease ; LPUSH fleet:enroll:requests forged ;
    LPUSH fleet:enroll:reply:{token}:request forged ; BRPOP fleet:enroll:reply:{token}:request 1 ; DEL fleet:h:h1:q ;
    LTRIM fleet:h:h1:q 1 0 ; DEL fleet:presence:h1 fleet:presence:h2 ; WATCH fleet:h:h1:epoch fleet:control:lease ;
    WATCH fleet:presence:h1 ; XREAD STREAMS fleet:h:h1:out:{run} 0 ; XREAD STREAMS fleet:h:h2:out:{run} 0 ;
    XADD fleet:h:h10:out:{run} * entry forged ; EXPIRE fleet:h:h10:out:{run} 1 ; XADD fleet:reports:h1 * entry forged ;
    PUBLISH fleet:h:h10:out:{run} forged ; SUBSCRIBE fleet:h:h1:out:{run} ; SUBSCRIBE fleet:h:h2:out:{run}
"""

#: Alice reads no queue, takes no message, forges no result and no presence, and removes no report of her own.
ONLY_A_PRINCIPAL = """
    INFO ; LPUSH fleet:h:h2:inbox:1 forged ; LPUSH fleet:h:h2:dead forged ; RPUSH fleet:h:h2:ctl forged ;
    LLEN fleet:h:h2:ctl ; LLEN fleet:h:h2:inbox:1 ; EXISTS fleet:h:h2:q ; GET fleet:presence:h2 ;
    MGET fleet:presence:h1 fleet:presence:h2 ; EXISTS fleet:control:lease ; HEXISTS fleet:hosts h2 ;
    SET fleet:presence:h3 forged ; LPUSH fleet:reports:h1 forged ; LRANGE fleet:reports:p:alice 0 -1 ;
    LTRIM fleet:reports:p:alice 1 0 ; RPOP fleet:reports:p:alice ; LREM fleet:reports:p:alice 0 report ;
    DEL fleet:reports:p:alice ; LLEN fleet:reports:p:alice ; SCARD fleet:reports:dirty ;
    SET celery-task-meta-h1:{run} forged NX ; PUBLISH celery-task-meta-h1:{run} forged ;
    EXPIRE celery-task-meta-h1:{run} 1 ; DEL celery-task-meta-h1:{run} ; GET celery-task-meta ;
    MGET celery-task-meta-h1:{run} fleet:control:lease ; MGET fleet:presence:h1 fleet:control:lease ;
    MGET fleet:presence:h1 fleet:inventory:h1 ; SUBSCRIBE /h-h1.celeryev/task.multi ; SUBSCRIBE elsewhere ;
    HGET fleet:control:withdrawn x ; HSCAN fleet:hosts 0 ; HVALS fleet:hosts ; HKEYS fleet:principals ;
    HMGET fleet:principals bob ; EXISTS fleet:trust ; LPUSH fleet:enroll:requests forged ;
    BRPOP fleet:enroll:reply:{token}:request 1 ; WATCH fleet:hosts ; UNWATCH ; DISCARD ;
    XADD fleet:h:h1:out:{run} * entry forged ; PUBLISH fleet:h:h1:out:{run} forged ;
    XREAD STREAMS fleet:h:h1:q 0 ; XREAD STREAMS fleet:h:h1:out:{run} fleet:control:withdrawn 0 0
"""

#: The holder of a token asks, and reads its own answers.
ONLY_A_JOINER = """
    INFO ; PING ; MULTI ; EXEC ; UNWATCH ; LLEN fleet:enroll:requests ; LREM fleet:enroll:requests 0 request ;
    RPUSH fleet:enroll:requests forged ; LPUSH fleet:enroll:requests:x forged ; BRPOP fleet:enroll:reply:{token} 1 ;
    BRPOP fleet:enroll:reply:{token}:request fleet:enroll:reply:{other}:request 1 ;
    LPUSH fleet:enroll:reply:{token}:request forged ; LRANGE fleet:enroll:reply:{token}:request 0 -1 ;
    RPOP fleet:enroll:reply:{token}:request ; BLPOP fleet:enroll:reply:{token}:request 1 ; LPUSH fleet:h:h1:q forged ;
    LPUSH fleet:h:h1:ctl forged ; LLEN fleet:h:h1:q ; LPUSH fleet:reports:h1 forged ;
    LPUSH fleet:reports:p:alice forged ; SADD fleet:reports:dirty h1 ; HGETALL fleet:hosts ; HGET fleet:hosts h1 ;
    HGET fleet:principals alice ; GET fleet:policy ; GET fleet:presence:h1 ; EXISTS fleet:presence:h1 ;
    SET fleet:presence:h1 forged ; GET fleet:inventory:h1 ; GET celery-task-meta-h1:{run} ;
    SET celery-task-meta-h1:{run} forged ; EXISTS fleet:control:lease ; SUBSCRIBE fleet:watch ;
    SUBSCRIBE celery-task-meta-h1:{run} ; UNSUBSCRIBE ; PUBLISH celery-task-meta-h1:{run} forged ;
    PUBLISH /h-h1.celeryev/task.multi forged ; XREAD STREAMS fleet:h:h1:out:{run} 0 ; SUBSCRIBE fleet:h:h1:out:{run}
"""

#: Flower hears what hosts tell it, and writes nothing.
ONLY_FLOWER = """
    TIME ; MULTI ; EXEC ; UNWATCH ; DISCARD ; LPUSH fleet:h:h1:q forged ; LPUSH fleet:h:h1:ctl forged ;
    LRANGE fleet:h:h1:q 0 -1 ; LLEN fleet:h:h1:ctl ; LLEN fleet:h:h1:inbox:1 ; LLEN fleet:reports:h1 ;
    LPUSH fleet:reports:h1 forged ;
    LPUSH fleet:reports:p:alice forged ; SADD fleet:reports:dirty h1 ; HGETALL fleet:hosts ;
    HGET fleet:principals alice ; GET fleet:trust ; GET fleet:policy ; GET fleet:presence:h1 ;
    EXISTS fleet:presence:h1 ; SET fleet:presence:h1 forged ; MGET fleet:inventory:h1 ; GET celery-task-meta-h1:{run} ;
    SET celery-task-meta-h1:{run} forged ; EXISTS fleet:control:lease ; LPUSH fleet:enroll:requests forged ;
    SUBSCRIBE fleet:watch ; SUBSCRIBE celery-task-meta-h1:{run} ; SUBSCRIBE /h-h1.celeryev/task.multi ;
    PSUBSCRIBE /h-* ; PSUBSCRIBE /h-h1.celeryev/* ; PSUBSCRIBE /h-*.celeryev/* * ;
    PUBLISH celery-task-meta-h1:{run} forged ; PUBLISH /h-h1.celeryev/task.multi forged ;
    PUBLISH /0.celery.pidbox forged ; XREAD STREAMS fleet:h:h1:out:{run} 0 ; SUBSCRIBE fleet:h:h1:out:{run}
"""

#: What each role may do beyond its work with other people's things or with everybody's, and why it harms nobody.
HARMLESS = {
    "h-h1": {
        "LLEN fleet:reports:h1": "how many of its own reports wait",
        "SADD fleet:reports:dirty h2": "the control plane looks once, and finds nothing new",
        "SADD fleet:reports:dirty p:bob": "likewise",
        "LPUSH fleet:h:h1:q forged": "it is root on that host already",
        "GET fleet:trust": "public keys, and whose credentials count",
        "GET fleet:policy": "everybody goes by it; what is refused says which rule refuses it",
        "CLIENT SETNAME control": "a name is a label in CLIENT LIST; nobody decides by it",
    },
    "p-alice": {
        "LPUSH fleet:h:h1:q forged": "it is to push; the host looks at what it is pushed",
        "LPUSH fleet:h:h1:ctl forged": "likewise",
        "LPUSH fleet:h:nobody:q forged": "nobody reads it; the control plane knows its hosts",
        "LLEN fleet:h:h1:q": "how long a queue is decides whether to push",
        "GET celery-task-meta-h1:{run}": "results are for principals",
        "XREAD STREAMS fleet:h:h1:out:{run} 0": "so is what runs say",
        "EXISTS fleet:presence:h1 fleet:presence:h2": "whom a push would reach",
        "HGET fleet:principals bob": "a credential is public: it says who may do what, signed",
        "SADD fleet:reports:dirty h2": "the control plane looks once, and finds nothing new",
    },
    "join-{token}": {
        "LPUSH fleet:enroll:requests forged": "it is to ask; an answer wants the secret of the token",
        "GET fleet:trust": "public keys",
        "TIME": "the time",
    },
    "flower": {
        "LLEN fleet:h:h1:q": "how long queues are is on its page",
        "INFO server": "the version of the broker",
    },
}
