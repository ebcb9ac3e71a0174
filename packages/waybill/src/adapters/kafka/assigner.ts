import type { KafkaAssigner, KafkaAssignment } from './client.ts'

/**
 * Gives each topic's partitions in turns to the members that asked for that topic, also where members of one group read different topics. Topics
 * begin their turns where the one before ended, so that many small topics do not all go to the first member.
 */
export const assignPartitions: KafkaAssigner = (_current, members, _topics, metadata) => {
  const ids = [...members.keys()].toSorted()
  const shares = new Map(ids.map((id) => [id, new Map<string, KafkaAssignment>()]))
  let turn = 0
  for (const name of [...metadata.topics.keys()].toSorted()) {
    const takers = ids.filter((id) => members.get(id)?.topics?.includes(name))
    if (takers.length === 0) continue
    for (let partition = 0; partition < metadata.topics.get(name)!.partitionsCount; partition++) {
      const share = shares.get(takers[turn++ % takers.length]!)!
      const assignment = share.get(name)
      if (assignment === undefined) share.set(name, { topic: name, partitions: [partition] })
      else assignment.partitions.push(partition)
    }
  }
  return [...shares].map(([memberId, assignments]) => ({ memberId, assignments }))
}
