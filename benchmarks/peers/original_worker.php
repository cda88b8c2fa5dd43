<?php
// The original's worker without its framework: one GearmanWorker, work() in a loop, one job at a time.
[$host, $port] = explode(':', getenv('BENCH_GEARMAN'));
$stamps = fopen(getenv('BENCH_STAMPS'), 'r+b');
stream_set_write_buffer($stamps, 0);
$worker = new GearmanWorker();
$worker->addServer($host, (int) $port);
$worker->addFunction('php', function (GearmanJob $job) use ($stamps) {
    $began = hrtime(true);
    $data = json_decode($job->workload(), true);
    if ($data['wait'] > 0) {
        usleep((int) ($data['wait'] * 1000));
    }
    fseek($stamps, $data['number'] * 24);
    fwrite($stamps, pack('QQQ', $began, getmypid(), hrtime(true)));
    return 'done';
});
while ($worker->work());
