def line(what, *values)
  "#{what} #{values.map(&:inspect).join(' ')}\n"
end

def raised
  yield
rescue StandardError => e
  e.class
end

run(lambda do |_env|
  UWSGI.cache_clear('c')
  body = line('set', UWSGI.cache_set('k', 'v', 0, 'c'), UWSGI.cache_set('k', 'w', 0, 'c')) +
         line('get', UWSGI.cache_get('k', 'c'), UWSGI.cache_get('none', 'c'), raised { UWSGI.cache_get!('none', 'c') }) +
         line('update', UWSGI.cache_update('k', "a\0b", 60, 'c'), UWSGI.cache_get('k', 'c')) +
         line('set!', raised { UWSGI.cache_set!('k', 'w', 0, 'c') }) +
         line('first', UWSGI.cache_update('k', 'first'), UWSGI.cache_get('k'), UWSGI.cache_exists('k')) +
         line('del', UWSGI.cache_del('k'), UWSGI.cache_del('k'), UWSGI.cache_exists?('k')) +
         line('clear', UWSGI.cache_clear('c'), UWSGI.cache_get('k', 'c'))
  [200, { 'Content-Type' => 'text/plain' }, [body]]
end)
