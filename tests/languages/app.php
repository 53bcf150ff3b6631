<?php
header('Content-Type: text/plain');
function line($what, $value) { echo $what, ' ', json_encode($value), "\n"; }

uwsgi_cache_clear('c');
line('set', [uwsgi_cache_set('k', 'v', 0, 'c'), uwsgi_cache_set('k', 'w', 0, 'c')]);
line('get', [uwsgi_cache_get('k', 'c'), uwsgi_cache_get('none', 'c'), uwsgi_cache_get('k', 'unknown')]);
line('update', [uwsgi_cache_update('k', 'w', 60, 'c'), uwsgi_cache_get('k', 'c')]);
line('exists', [uwsgi_cache_exists('k', 'c'), uwsgi_cache_exists('none', 'c')]);
line('del', [uwsgi_cache_del('k', 'c'), uwsgi_cache_del('k', 'c'), uwsgi_cache_get('k', 'c')]);
line('first', [uwsgi_cache_update('k', 'first'), uwsgi_cache_get('k'), uwsgi_cache_get('k', 'first')]);
line('clear', [uwsgi_cache_set('k', 'v', 0, 'c'), uwsgi_cache_clear('c'), uwsgi_cache_get('k', 'c')]);

session_id('abcdefghijklmnopqrstuv');
session_start();
$_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
line('session', $_SESSION['visits']);
